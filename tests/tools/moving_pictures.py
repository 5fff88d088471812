"""Videos made for tests: every frame carries its number as a bar code, and a plain full decoding is the judge."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

BITS = 10
MILLISECOND = Fraction(1, 1000)


def bar_code(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """A frame of ``BITS`` vertical stripes, black or white, most significant bit on the left."""
    bits = np.array([number >> bit & 1 for bit in reversed(range(BITS))], np.uint8) * 255
    stripes = bits[np.arange(width) * BITS // width]
    return np.repeat(np.repeat(stripes[None, :, None], height, axis=0), 3, axis=2)


def read_bar_code(pixels: NDArray[np.uint8]) -> int:
    """The number that :func:`bar_code` drew, after any coding and resizing."""
    height, width = pixels.shape[:2]
    centres = [int((bit + 0.5) * width / BITS) for bit in range(BITS)]
    number = 0
    for centre in centres:
        number = number << 1 | int(pixels[height // 4 : 3 * height // 4 + 1, centre].mean() > 127)
    return number


@contextmanager
def own_scheduling() -> Iterator[None]:
    """Take back what libsvtav1 does as root: it gives the thread that opens it real-time priority, and all it starts.

    No control group for processor time takes such a process, and one that spins starves the whole machine.
    """
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


def write_video(
    path: Path,
    times: Sequence[int],
    *,
    tick: Fraction = MILLISECOND,
    codec: str = "libx264",
    size: tuple[int, int] = (160, 96),
    options: dict[str, str] | None = None,
    rotation: int | None = None,
    audio: bool = False,
    pix_fmt: str = "yuv420p",
    **container: Any,
) -> Path:
    """Write one frame at each of ``times`` (in ticks); frame i shows the bar code of i."""
    with own_scheduling(), av.open(str(path), "w", **container) as file:
        stream: Any = file.add_stream(codec, rate=Fraction(1, tick) if codec == "mpeg4" else 25, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = "rgb8" if codec == "gif" else pix_fmt
        stream.codec_context.time_base = tick
        if rotation is not None:
            stream.set_display_rotation(rotation)
        sound = file.add_stream("aac", rate=8000) if audio else None
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(bar_code(number, *size)).reformat(format=stream.pix_fmt)
            frame.pts, frame.time_base = time, tick
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
        if sound is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
            silence.sample_rate, silence.pts = 8000, 0
            file.mux(sound.encode(silence))
            file.mux(sound.encode())
    return path


@dataclass(frozen=True)
class Judge:
    """Every frame of a file by a full decoding: times in seconds from the first frame, and the numbers shown."""

    times_s: tuple[float, ...]
    numbers: tuple[int, ...]

    @classmethod
    def of(cls, path: Path) -> Judge:
        with av.open(str(path)) as file:
            frames = [(frame.pts, frame) for frame in file.decode(video=0) if frame.pts is not None]
            tick = file.streams.video[0].time_base
            assert tick is not None
            ticks = [pts for pts, _ in frames]
            numbers = [read_bar_code(np.asarray(frame.to_ndarray(format="rgb24"))) for _, frame in frames]
        assert ticks == sorted(set(ticks))
        return cls(tuple(float((pts - ticks[0]) * tick) for pts in ticks), tuple(numbers))

    def at(self, time_s: float) -> tuple[float, int]:
        """Time and number of the frame on screen at ``time_s``."""
        index = max(0, bisect_right(self.times_s, time_s + 1e-6) - 1)
        return self.times_s[index], self.numbers[index]
