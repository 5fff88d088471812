"""Clip files: exactly the frames of a span, for as long as they were shown, copied where that shows the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from keyeloop.agent.cli import main
from keyeloop.runtime.errors import InputError
from keyeloop.runtime.evidence import Region
from keyeloop.tools import cut_clip
from keyeloop.tools.video.decoder import Decoder
from tests.tools.moving_pictures import Judge, read_bar_code, write_video
from tests.tools.test_video_exact import CASES, variable

SPANS = [(1.3, 4.0), (0.0, 2.0), (5.05, 5.1), (3.0, 99.0)]
COPIED = {"variable.mp4", "open_groups.mp4", "hevc.mp4", "variable.mkv", "vp9.webm", "variable.ts", "av1.mp4"}
ENCODED = {"program.mpg", "wmv2.wmv", "variable.gif"}


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder() as one:
        yield one


@pytest.mark.parametrize("name", sorted(COPIED | ENCODED))
def test_a_clip_shows_the_frames_of_its_span(name: str, tmp_path: Path, decoder: Decoder) -> None:
    path = write_video(tmp_path / name, **CASES[name])
    judge = Judge.of(path)
    for place, (start_s, end_s) in enumerate(SPANS):
        for copy in (True, False):
            made = cut_clip(path, start_s, end_s, tmp_path / f"{place}{copy}.mp4", copy=copy, decoder=decoder)
            first_s = judge.at(start_s)[0]
            wanted = [place for place, time_s in enumerate(judge.times_s) if first_s <= time_s < end_s - 1e-6]
            shown = Judge.of(made.path)
            assert shown.numbers == tuple(judge.numbers[place] for place in wanted)
            assert [first_s + time_s for time_s in shown.times_s] == pytest.approx(
                [judge.times_s[place] for place in wanted], abs=0.001
            )
            assert made.start_s == pytest.approx(first_s, abs=1e-6)
            assert (made.frames, made.copied) == (len(wanted), copy and name in COPIED)
            after = [*judge.times_s, made.end_s][wanted[-1] + 1]
            assert made.end_s == pytest.approx(after, abs=1e-6)


def test_the_sound_of_the_span_comes_along(tmp_path: Path, decoder: Decoder) -> None:
    path = write_video(tmp_path / "talk.mp4", variable(), options={"bf": "2"}, audio=True)
    for copy in (True, False):
        made = cut_clip(path, 0.3, 0.8, tmp_path / f"{copy}.mp4", copy=copy, decoder=decoder)
        assert made.sound and made.copied is copy
        with av.open(str(made.path)) as file:
            samples = sum(frame.samples for frame in file.decode(audio=0))
        assert 0.25 < samples / 8000 <= 0.8
    later = cut_clip(path, 5.0, 6.0, tmp_path / "later.mp4", decoder=decoder)
    assert not later.sound, "the sound lasts one second"


def test_a_turned_video_stays_upright(tmp_path: Path, decoder: Decoder) -> None:
    path = write_video(tmp_path / "phone.mp4", variable(), rotation=90)
    for copy in (True, False):
        made = cut_clip(path, 1.0, 2.0, tmp_path / f"{copy}.mp4", copy=copy, decoder=decoder)
        facts = decoder.probe(str(made.path))
        assert (facts.width, facts.height) == (96, 160)
        (ours,) = decoder.cut(str(made.path), [0.0], Region(0, 0, 96, 160), 96, 160)
        (theirs,) = decoder.cut(str(path), [1.0], Region(0, 0, 96, 160), 96, 160)
        assert read_bar_code(np.rot90(ours.pixels, k=-1)) == read_bar_code(np.rot90(theirs.pixels, k=-1))


def test_what_cannot_be_cut_is_told_and_nothing_is_replaced(tmp_path: Path, decoder: Decoder) -> None:
    path = write_video(tmp_path / "board.mp4", [40 * number for number in range(50)])
    taken = tmp_path / "taken.mp4"
    taken.write_bytes(b"mine")
    still = tmp_path / "still.png"
    still.write_bytes(cv2.imencode(".png", np.zeros((9, 9, 3), np.uint8))[1].tobytes())
    for video, span, out, told in (
        (path, (1.0, 1.5), taken, "exists already: name another file"),
        (path, (1.0, 1.5), tmp_path / "x.mkv", "name an .mp4 file in a folder that exists"),
        (path, (5.0, 6.0), tmp_path / "x.mp4", "lasts from 0 to 2.000 s: from 5 to 6 s there is no span in it"),
        (path, (1.5, 1.0), tmp_path / "x.mp4", "there is no span in it"),
        (still, (0.0, 1.0), tmp_path / "x.mp4", "is a picture, not a video"),
        (tmp_path / "gone.mp4", (0.0, 1.0), tmp_path / "x.mp4", "does not exist"),
    ):
        with pytest.raises(InputError, match=told):
            cut_clip(video, *span, out, decoder=decoder)
    assert taken.read_bytes() == b"mine" and not (tmp_path / "x.mp4").exists()
    assert cut_clip(path, 1.0, 1.5, taken, force=True, decoder=decoder).frames == 13
    assert sorted(file.name for file in tmp_path.iterdir()) == ["board.mp4", "still.png", "taken.mp4"]


def test_the_command_cuts_and_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_video(tmp_path / "board.mp4", [40 * number for number in range(50)], options={"bf": "2"})
    out = tmp_path / "clip.mp4"
    for code, told in ((0, "24 frames, 0:00:00.480 to 0:00:01.440, copied, without sound"), (2, "exists already")):
        with pytest.raises(SystemExit) as leave:
            main(["clip", str(path), str(out), "--from", "0.5", "--to", "1.44"])
        printed = capsys.readouterr()
        assert leave.value.code == code and told in printed.out + printed.err
