"""Videos with sound made for tests: bursts of a tone at known moments, or samples that are given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from tests.tools.moving_pictures import bar_code

TONE_HZ = 800
BURST_S = 0.5
FPS = 25


def bursts(starts_s: Sequence[float], length_s: float, rate_hz: int) -> NDArray[np.int16]:
    """Silence of ``length_s`` with a loud tone of half a second at each of ``starts_s``."""
    at = np.arange(round(length_s * rate_hz)) / rate_hz
    loud = np.zeros(len(at), bool)
    for start_s in starts_s:
        loud |= (at >= start_s) & (at < start_s + BURST_S)
    return (np.sin(2 * np.pi * TONE_HZ * at) * loud * 20_000).astype(np.int16)


def write_talk(
    path: Path,
    sound: NDArray[np.int16],
    rate_hz: int,
    *,
    codec: str = "aac",
    layout: str = "mono",
    late_s: float = 0.0,
    video: str = "libx264",
) -> Path:
    """A video of bar codes at 25 frames a second, as long as its sound, which is heard ``late_s`` after the pictures.

    ``late_s`` below 0 lets the pictures begin later than the sound, both at times that are not zero.
    """
    with av.open(str(path), "w") as file:
        pictures: Any = file.add_stream(video, rate=FPS)
        pictures.width, pictures.height, pictures.pix_fmt = 160, 96, "yuv420p"
        track: Any = file.add_stream(codec, rate=rate_hz, layout=layout)
        first = round(max(0.0, -late_s) * FPS)
        for number in range(round(len(sound) / rate_hz * FPS)):
            frame = av.VideoFrame.from_ndarray(bar_code(number % 1024, 160, 96))
            frame.pts = first + number
            file.mux(pictures.encode(frame))
        file.mux(pictures.encode())
        resampler = av.AudioResampler(track.format.name, layout, rate_hz, frame_size=track.frame_size or 1024)
        whole = av.AudioFrame.from_ndarray(sound[None], "s16", "mono")
        whole.sample_rate, whole.pts = rate_hz, round(max(0.0, late_s) * rate_hz)
        for piece in (*resampler.resample(whole), *resampler.resample(None)):
            file.mux(track.encode(piece))
        file.mux(track.encode())
    return path


def onsets(samples: NDArray[np.float32], rate_hz: int) -> list[float]:
    """When it becomes loud after at least a fifth of a second of silence, in seconds."""
    loud = np.flatnonzero(np.abs(samples) > 0.3 * np.abs(samples).max())
    first = np.flatnonzero(np.diff(loud, prepend=-rate_hz) > rate_hz // 5)
    return [float(place / rate_hz) for place in loud[first]]
