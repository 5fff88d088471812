"""The sound of a video, decoded in the guarded child: every sample at its own time, counted from the first frame."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from keyeloop.tools.confined.errors import Unusable
from keyeloop.tools.video.decoder import Decoder
from keyeloop.tools.video.sound import RATE_HZ, hear
from tests.tools.moving_pictures import write_video
from tests.tools.talking_pictures import BURST_S, bursts, onsets, write_talk

STARTS_S = [0.5, 2.0, 3.25]
LENGTH_S = 4.0


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder() as one:
        yield one


@pytest.mark.parametrize(
    ("name", "codec", "rate_hz", "layout"),
    [
        ("aac.mp4", "aac", 44_100, "stereo"),
        ("mp3.mkv", "libmp3lame", 32_000, "mono"),
        ("opus.mkv", "libopus", 48_000, "mono"),
        ("flac.mkv", "flac", 48_000, "5.1"),
        ("aac.ts", "aac", 22_050, "mono"),
        ("pcm.avi", "pcm_s16le", 16_000, "mono"),
        ("ac3.mov", "ac3", 48_000, "stereo"),
    ],
)
def test_sound_is_heard_when_it_sounds(
    name: str, codec: str, rate_hz: int, layout: str, tmp_path: Path, decoder: Decoder
) -> None:
    sound = bursts(STARTS_S, LENGTH_S, rate_hz)
    video = "mpeg4" if name.endswith("avi") else "libx264"
    path = str(write_talk(tmp_path / name, sound, rate_hz, codec=codec, layout=layout, video=video))
    whole = hear(path, 0.0, LENGTH_S, decoder)
    assert whole.dtype == np.float32 and len(whole) == LENGTH_S * RATE_HZ
    assert onsets(whole, RATE_HZ) == pytest.approx(STARTS_S, abs=0.03)
    loud = np.abs(whole) > 0.2 * np.abs(whole).max()
    assert loud.mean() == pytest.approx(len(STARTS_S) * BURST_S / LENGTH_S, rel=0.2)
    part = hear(path, 1.9, 3.3, decoder)
    assert onsets(part, RATE_HZ) == pytest.approx([0.1, 1.35], abs=0.03)


@pytest.mark.parametrize("late_s", [0.6, -0.6])
def test_times_count_from_the_first_frame(late_s: float, tmp_path: Path, decoder: Decoder) -> None:
    path = write_talk(tmp_path / "talk.mkv", bursts([1.0], 3.0, 16_000), 16_000, late_s=late_s)
    assert onsets(hear(str(path), 0.0, 3.0, decoder), RATE_HZ) == pytest.approx([1.0 + late_s], abs=0.03)


def test_where_there_is_no_sound_any_more_it_is_silent(tmp_path: Path, decoder: Decoder) -> None:
    path = write_talk(tmp_path / "talk.mp4", bursts([0.5], 2.0, 16_000), 16_000)
    assert not hear(str(path), 5.0, 6.0, decoder).any()


def test_damage_leaves_the_rest(tmp_path: Path, decoder: Decoder) -> None:
    path = write_talk(tmp_path / "talk.mkv", bursts(STARTS_S, LENGTH_S, 16_000), 16_000, codec="libmp3lame")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    path.write_bytes(data)
    heard = onsets(hear(str(path), 0.0, LENGTH_S, decoder), RATE_HZ)
    assert heard[0] == pytest.approx(STARTS_S[0], abs=0.03) and heard[-1] == pytest.approx(STARTS_S[-1], abs=0.03)


def test_a_video_without_sound_says_so(tmp_path: Path, decoder: Decoder) -> None:
    path = write_video(tmp_path / "mute.mp4", [40 * number for number in range(10)])
    with pytest.raises(Unusable, match=r"^has no sound$"):
        hear(str(path), 0.0, 0.4, decoder)
