"""Board videos as files: the same seed gives the same video, and its answers are what its frames show."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import av
import numpy as np
import pytest

from keyeloop.agent.evaluation.kinds import score
from keyeloop.agent.evaluation.question_file import read_questions
from keyeloop.agent.evaluation.score import Said
from keyeloop.runtime.errors import InputError
from keyeloop.tools.demo_video import questions
from keyeloop.tools.demo_video.glyphs import GlyphAtlas
from keyeloop.tools.demo_video.paint import paint
from keyeloop.tools.demo_video.record import Recording, record
from keyeloop.tools.demo_video.scene import HELDOUT_STYLES
from keyeloop.tools.demo_video.timeline import sample_video


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return record(tmp_path_factory.mktemp("board") / "board.mp4", seed=11, duration_s=12.0)


def test_the_answers_lie_beside_the_video(recording: Recording) -> None:
    rows = json.loads(recording.answers_path.read_text())
    assert recording.answers_path == recording.path.with_suffix(".json")
    assert [set(row) for row in rows] == [{"family", "question", "answer", "start_s", "end_s"}] * len(rows)
    assert {"read", "not_there"} <= {row["family"] for row in rows}
    assert [row["start_s"] for row in rows] == sorted(row["start_s"] for row in rows)


def test_every_frame_shows_the_scene_of_its_time(recording: Recording) -> None:
    video, atlas = recording.video, GlyphAtlas.bundled()
    with av.open(str(recording.path)) as container:
        frames = [(float(frame.time or 0.0), frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    assert len(frames) == round(video.duration_s * video.fps)
    assert frames[0][1].shape == (720, 1280, 3)
    assert frames[-1][0] == pytest.approx(video.duration_s - 1 / video.fps)
    for time_s, pixels in frames[:: max(1, len(frames) // 12)]:
        assert time_s == pytest.approx(video.frame_time(time_s), abs=1e-4)
        painted = paint(video.scene_at(time_s), atlas).astype(np.int16)
        assert np.abs(painted - pixels).mean() < 6


def test_questions_ask_for_what_is_shown(recording: Recording) -> None:
    video = recording.video
    for question in recording.questions:
        shots = [video.shot_at(time_s) for time_s in question.times_s]
        if question.family == "read":
            assert question.answer == shots[0].board
        elif question.family == "read_small":
            assert question.answer == shots[0].sign
        elif question.family == "compute":
            expression = f"{int(shots[0].board)} {question.operation} {int(shots[1].board)}"
            assert question.answer == str(eval(expression))
        else:
            gone = question.times_s[0] >= video.duration_s
            assert gone or not shots[0].board or shots[0].sign is None
        if question.family != "not_there":
            assert question.start_s <= min(question.times_s) and max(question.times_s) < question.end_s


def test_moments_are_asked_for_on_request_alone(recording: Recording, tmp_path: Path) -> None:
    assert "when" not in {row["family"] for row in json.loads(recording.answers_path.read_text())}
    made = record(tmp_path / "board.mp4", seed=11, duration_s=12.0, moments=True)
    assert [one for one in made.questions if one.family != "when"] == list(recording.questions)
    asked = [row for row in json.loads(made.answers_path.read_text()) if row["family"] == "when"]
    assert asked and all(row["tolerance"] == 0.5 and row["question"].startswith("When does ") for row in asked)
    assert all(row["answer"] == f"{row['start_s']:.1f} s" for row in asked)
    timed = next(one for one in read_questions([made.answers_path]) if one.family == "when")
    for off_s, right in ((0.0, True), (0.4, True), (0.6, False)):
        said = Said(f"{(timed.start_s or 0.0) + off_s:.1f} s [f9 310,200,640,460]")
        assert score(timed, said).right is right


def test_the_same_seed_gives_the_same_file(recording: Recording, tmp_path: Path) -> None:
    again = record(tmp_path / "again.mp4", seed=11, duration_s=12.0)
    assert again.video == recording.video and again.questions == recording.questions
    assert again.path.read_bytes() == recording.path.read_bytes()


def test_heldout_videos_use_what_was_never_trained_on() -> None:
    atlas = GlyphAtlas.bundled()
    for seed in range(20):
        look = sample_video(random.Random(seed), atlas, heldout=True).look
        assert look.background.style in HELDOUT_STYLES
        assert atlas.heldout[look.board.run.font]


@pytest.mark.parametrize("name", ["board.avi", "no/such/folder/board.mp4"])
def test_a_path_that_cannot_be_written_is_an_input_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"name an \.mp4 file in a folder that exists"):
        record(tmp_path / name, seed=1)
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_of_a_video_that_was_broken_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(InputError, match=r"folder.mp4 cannot be written \(Is a directory\): name another .mp4 file"):
        record(tmp_path / "folder.mp4", seed=1, duration_s=1.0)

    def ctrl_c(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("keyeloop.tools.demo_video.record.paint", ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        record(tmp_path / "board.mp4", seed=1, duration_s=1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.mp4"]


def test_times_are_said_as_people_write_them() -> None:
    rng = random.Random(3)
    for _ in range(500):
        time_s = round(rng.uniform(0, 4000), rng.choice((0, 1)))
        said = questions.say_time(rng, time_s)
        clock = re.fullmatch(r"(?:(\d+):)?(\d+):(\d\d)", said)
        minutes = re.fullmatch(r"(\d+) min (\d+) s", said)
        if clock:
            meant = int(clock[1] or 0) * 3600 + int(clock[2]) * 60 + int(clock[3])
        elif minutes:
            meant = int(minutes[1]) * 60 + int(minutes[2])
        else:
            found = re.search(r"\d+(?:\.\d)?", said)
            assert found is not None
            meant = float(found[0])  # type: ignore[assignment]
        assert meant == time_s
