"""The frame on screen at a moment, against a plain full decoding of the same file, for every container and clock."""

from __future__ import annotations

import os
import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from keyeloop.runtime.evidence import Region
from keyeloop.tools.confined.errors import Unusable
from keyeloop.tools.video.child.recent import RecentFrames
from keyeloop.tools.video.child.sniff import sniff
from keyeloop.tools.video.child.video import VideoReader
from keyeloop.tools.video.decoder import Decoder
from keyeloop.tools.video.excerpt import cut_clip
from tests.tools.moving_pictures import Judge, read_bar_code, write_video

FRAMES = 200
TV = Fraction(1, 25)
CONSTANT = [number * 40 for number in range(FRAMES)]
NUMBERS = list(range(FRAMES))
B_FRAMES = {"bf": "3", "g": "40"}
OPEN_GROUPS = {"bf": "3", "g": "30", "x264-params": "open-gop=1:b-adapt=0:scenecut=0"}
PYRAMID = "b-pyramid=normal:b-adapt=0:scenecut=0"
X265 = {"x265-params": "log-level=none:keyint=50:bframes=3", "preset": "ultrafast"}
VP9 = {"deadline": "realtime", "cpu-used": "8"}
AV1 = {"preset": "8", "crf": "20", "svtav1-params": "keyint=40"}


def variable(seed: int = 7) -> list[int]:
    """Uneven times in milliseconds: short and long frames, and a few stills of almost a second."""
    rng, time, times = random.Random(seed), 0, []
    for number in range(FRAMES):
        times.append(time)
        time += 900 if number % 50 == 49 else rng.choice([20, 40, 40, 100])
    return times


CASES: dict[str, dict[str, Any]] = {
    "constant.mp4": {"times": CONSTANT, "options": B_FRAMES},
    "variable.mp4": {"times": variable(), "options": B_FRAMES},
    "offset.mp4": {"times": [5000 + time for time in variable()], "options": B_FRAMES},
    "open_groups.mp4": {"times": CONSTANT, "options": OPEN_GROUPS},
    "one_key_frame.mp4": {"times": variable(), "options": {"bf": "2", "g": "1000", "x264-params": "scenecut=0"}},
    "fragments.mp4": {
        "times": variable(),
        "options": B_FRAMES,
        "container_options": {"movflags": "frag_keyframe+empty_moov"},
    },
    "hevc.mp4": {
        "times": variable(),
        "codec": "libx265",
        "options": X265,
    },
    "with_sound.mov": {"times": variable(), "options": B_FRAMES, "audio": True},
    "variable.mkv": {"times": variable(), "options": B_FRAMES},
    "vp9.webm": {"times": variable(), "codec": "libvpx-vp9", "options": VP9},
    "variable.ts": {"times": variable(), "options": B_FRAMES, "audio": True},
    "open_groups.ts": {"times": CONSTANT, "options": OPEN_GROUPS},
    "mpeg2.ts": {"times": NUMBERS, "tick": TV, "codec": "mpeg2video", "options": {"bf": "2", "g": "15"}},
    "program.mpg": {
        "times": NUMBERS,
        "tick": TV,
        "codec": "mpeg2video",
        "options": {"bf": "2", "g": "15"},
        "format": "vob",
    },
    "mpeg4.avi": {"times": NUMBERS, "tick": TV, "codec": "mpeg4", "options": {"bf": "2", "g": "30"}},
    "wmv2.wmv": {"times": NUMBERS, "tick": TV, "codec": "wmv2", "options": {"g": "30"}, "format": "asf"},
    "variable.flv": {"times": variable(), "options": B_FRAMES},
    "variable.gif": {"times": [time // 10 for time in variable()], "tick": Fraction(1, 100), "codec": "gif"},
    "tiny.mp4": {"times": variable(), "options": B_FRAMES, "size": (40, 2)},
    "b_pyramid.mp4": {"times": variable(), "options": {"bf": "8", "g": "120", "x264-params": PYRAMID}},
    "fields.mp4": {"times": CONSTANT, "options": {**B_FRAMES, "x264-params": "tff=1"}},
    "fields.ts": {"times": NUMBERS, "tick": TV, "codec": "mpeg2video", "options": {"g": "15", "flags": "+ildct+ilme"}},
    "ten_bits.mp4": {"times": variable(), "codec": "libx265", "options": X265, "pix_fmt": "yuv420p10le"},
    "hevc.ts": {"times": CONSTANT, "codec": "libx265", "options": X265},
    "av1.mp4": {"times": variable(), "codec": "libsvtav1", "options": AV1},
    "av1.webm": {"times": variable(), "codec": "libsvtav1", "options": AV1},
    "endless.webm": {"times": variable(), "codec": "libvpx-vp9", "options": VP9, "container_options": {"live": "1"}},
    "endless.mkv": {"times": variable(), "options": B_FRAMES, "container_options": {"live": "1"}},
    "no_index.avi": {"times": NUMBERS, "tick": TV, "codec": "mpeg4", "options": {"bf": "2", "g": "30"}},
}


@pytest.mark.parametrize("name", CASES)
def test_every_moment_shows_what_a_full_decoding_shows(name: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / name, **CASES[name])
    assert os.sched_getscheduler(0) == os.SCHED_OTHER, "a codec keeps this process on real-time priority"
    if name.startswith("no_index"):
        path.write_bytes(path.read_bytes().replace(b"idx1", b"JUNK"))
    judge = Judge.of(path)
    assert judge.numbers == tuple(NUMBERS)
    rng = random.Random(name)
    moments = [rng.uniform(0, judge.times_s[-1] + 2) for _ in range(25)]
    moments += [time + shift for time in rng.sample(judge.times_s, 15) for shift in (0.0, -1e-4, 1e-4)]
    fd = os.open(path, os.O_RDONLY)
    reader = VideoReader(fd, sniff(fd).demuxer)
    reader._recent = RecentFrames(keep_bytes=0)  # every moment is sought anew

    for moment in [*moments, *sorted(moments)]:
        shown = reader.shown(moment)
        assert (shown.time_s, read_bar_code(reader.pixels(shown))) == judge.at(moment), f"at {moment} s"
    if CASES[name]["times"] in (CONSTANT, NUMBERS):
        assert reader.facts.duration_s == pytest.approx(FRAMES / 25, abs=0.0015)
    assert 0.01 < reader.facts.duration_s - judge.times_s[-1] <= 0.9
    for moment in moments[:10]:
        shown = reader.key_frame(moment)
        assert (shown.time_s, read_bar_code(reader.pixels(shown))) == judge.at(shown.time_s)
        assert shown.time_s <= judge.at(moment)[0] and shown.frame.key_frame
    assert reader.shown(moments[0]).time_s == judge.at(moments[0])[0], "after a key frame all is as it was"
    reader.close()


def test_frames_come_once_each_in_the_order_asked(tmp_path: Path) -> None:
    path = write_video(tmp_path / "board.mp4", variable(), options=B_FRAMES)
    judge = Judge.of(path)
    moments = [3.0, 3.001, 0.0, 7.5, 3.002]
    with Decoder() as decoder:
        cuts = decoder.cut(str(path), moments, Region(0, 0, 160, 96), 80, 48)

    assert [cut.pixels.shape for cut in cuts] == [(48, 80, 3)] * 3
    assert [(cut.time_s, read_bar_code(cut.pixels)) for cut in cuts] == [judge.at(moment) for moment in (3.0, 0.0, 7.5)]


def test_a_frame_is_found_again_by_its_own_time(tmp_path: Path) -> None:
    film = Fraction(1001, 30000)
    path = write_video(tmp_path / "film.mkv", NUMBERS, tick=film, options=B_FRAMES)
    fd = os.open(path, os.O_RDONLY)
    reader = VideoReader(fd, sniff(fd).demuxer)
    for moment in (0.7, 1.9, 4.4):
        time_s = reader.shown(moment).time_s
        reader._recent.clear()
        assert reader.shown(time_s).time_s == time_s
    reader.close()


COUNTED: dict[str, dict[str, Any]] = {
    "reordered.avi": {"options": B_FRAMES},
    "bare.h264": {"options": B_FRAMES},
    "film.h264": {"options": {"bf": "3", "g": "30", "aud": "1"}, "tick": Fraction(1001, 30000)},
    "bare.hevc": {"codec": "libx265", "options": X265},
    "closed.hevc": {"codec": "libx265", "options": {"x265-params": "log-level=none:keyint=30:open-gop=0:radl=2"}},
}


@pytest.mark.parametrize("name", COUNTED)
def test_frames_without_times_are_counted(name: str, tmp_path: Path) -> None:
    """A full decoding gives them in the order of their numbers, at the stream's rate."""
    made = {"tick": TV, **COUNTED[name]}
    path = write_video(tmp_path / name, NUMBERS, **made)
    rate = float(1 / made["tick"])
    rng = random.Random(name)
    numbers = [rng.randrange(FRAMES) for _ in range(25)]
    moments = [(number + rng.choice([0.0, 0.5, 0.99])) / rate for number in [*numbers, *sorted(numbers)]]
    fd = os.open(path, os.O_RDONLY)
    reader = VideoReader(fd, sniff(fd).demuxer)
    reader._recent = RecentFrames(keep_bytes=0)
    assert "they are counted: " in reader.facts.note and reader.facts.fps == pytest.approx(rate)
    assert reader.facts.duration_s == pytest.approx(FRAMES / rate)
    for one in (reader, reader.twin()):
        for number, moment in zip([*numbers, *sorted(numbers)], moments, strict=True):
            shown = one.shown(moment)
            assert read_bar_code(one.pixels(shown)) == number and shown.time_s == pytest.approx(number / rate)
        for moment in moments[:10]:
            shown = one.key_frame(moment)
            assert shown.time_s == pytest.approx(read_bar_code(one.pixels(shown)) / rate) and shown.time_s <= moment
        one.close()
    assert reader._tape.key_frames() or 0 > 4, "it need not begin at the beginning"


def test_a_clip_of_counted_frames_is_encoded_anew(tmp_path: Path) -> None:
    path = write_video(tmp_path / "bare.h264", NUMBERS, tick=TV, options=B_FRAMES)
    clip = cut_clip(path, 1.0, 3.0, tmp_path / "clip.mp4")
    assert (clip.frames, clip.copied) == (50, False)
    assert Judge.of(clip.path).numbers == tuple(range(25, 75))


def test_packets_that_are_not_frames_cannot_be_counted(tmp_path: Path) -> None:
    path = write_video(tmp_path / "bare.h264", NUMBERS[:40], tick=TV, options={"bf": "0", "x264-params": "scenecut=0"})
    data = bytearray(path.read_bytes())
    data[data.index(b"\0\0\1\x41", len(data) // 2) + 4] = 0x8B  # a slice of a type that there is not
    path.write_bytes(data)
    with Decoder() as decoder, pytest.raises(Unusable, match=r"cannot be counted.*convert it to mp4"):
        decoder.probe(str(path))


def test_damage_in_the_middle_costs_only_the_damaged_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "scratched.ts", CONSTANT, options={"g": "20", "bf": "0"})
    judge = Judge.of(path)
    data = bytearray(path.read_bytes())
    start = len(data) // 2 // 188 * 188
    data[start : start + 4 * 188] = bytes(4 * 188)
    path.write_bytes(data)
    with Decoder() as decoder:
        cuts = decoder.cut(str(path), [1.0, 7.0], Region(0, 0, 160, 96), 160, 96)
    assert [(cut.time_s, read_bar_code(cut.pixels)) for cut in cuts] == [judge.at(1.0), judge.at(7.0)]
