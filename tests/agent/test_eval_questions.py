"""Files of questions: both forms, which video is meant, and everything wrong told before anything is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from keyeloop.agent.batch.task_file import BadLines
from keyeloop.agent.evaluation.question_file import read_questions
from keyeloop.runtime.errors import InputError
from keyeloop.tools.demo_video.record import record

PLAIN = {"question": "What?", "answer": "it"}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    """A list where the name ends in .json, else lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(rows) if path.suffix == ".json" else "\n\n".join(map(json.dumps, rows))
    path.write_text(text, encoding="utf-8")
    return path


def touch(*paths: Path) -> None:
    """Files that are taken for videos until they are opened."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_what_demo_video_writes_is_read(tmp_path: Path) -> None:
    made = record(tmp_path / "board.mp4", seed=3, duration_s=12)
    found = read_questions([made.answers_path])
    assert [each.text for each in found] == [question.text for question in made.questions]
    assert {each.kind for each in found} == {"exact"} and {each.group for each in found} == {"board.mp4"}
    assert {each.family for each in found} >= {"read", "not_there"}
    assert all(each.task.video == tmp_path / "board.mp4" and each.task.task == each.text for each in found)
    assert found[0].interval == (made.questions[0].start_s, made.questions[0].end_s)


def test_kinds_follow_what_a_question_has(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4")
    rows: list[dict[str, Any]] = [
        PLAIN,
        {"question": "Which?", "options": ["red", "blue"], "answer": "blue"},
        {"question": "Which?", "options": {"x": "red", "y": "blue"}, "answer": "X"},
        {"question": "How many?", "answer": 12, "tolerance": "5%"},
        {"question": "When?", "start_s": 3, "end_s": 4.5},
        {"task": "Why?", "answer": ["this", "that"], "kind": "judged", "notes": {"by": "me"}},
        {"question": "How far?", "kind": "number", "answer": "3.5 m"},
    ]
    plain, listed, named, number, interval, judged, far = read_questions([write(tmp_path / "q.jsonl", *rows)])
    assert [each.kind for each in (plain, listed, named, number, interval, judged, far)] == [
        "exact", "choice", "choice", "number", "interval", "judged", "number"
    ]  # fmt: skip
    assert listed.task.task == "Which?\nA. red\nB. blue\nAnswer with the letter of one option."
    assert named.options == {"X": "red", "Y": "blue"} and named.text == "Which?"
    assert number.tolerance.relative and number.wanted == ("12",)
    assert interval.wanted_words == "3 to 4.5 s" and interval.task.task.startswith("When?\nGive its start")
    assert judged.wanted_words == "this or that"
    assert len({each.id for each in (plain, listed, named, number, interval, judged, far)}) == 7


def test_a_mended_answer_is_the_same_question(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4")
    (before,) = read_questions([write(tmp_path / "q.json", PLAIN)])
    (after,) = read_questions([write(tmp_path / "q.json", {**PLAIN, "answer": "that", "family": "new"})])
    assert before.id == after.id and before.asked == after.asked and before.wanted != after.wanted


def test_which_video_is_meant(tmp_path: Path) -> None:
    films, sets = tmp_path / "films", tmp_path / "sets"
    touch(films / "one.mp4", films / "two.mkv", films / "deep" / "three.mov", sets / "two.mp4")

    def video_of(row: dict[str, Any], name: str = "q.jsonl", videos: Path | None = films) -> Path | None:
        (found,) = read_questions([write(sets / name, {**PLAIN, **row})], videos)
        return Path(found.task.video) if found.task.video else None

    assert video_of({"video": "deep/three.mov"}) == films / "deep" / "three.mov"
    assert video_of({}, "one.jsonl") == films / "one.mp4", "of the file's name"
    assert video_of({}, "two.json") == films / "two.mkv", "in the folder first"
    assert video_of({}, "two.json", None) == sets / "two.mp4", "beside the questions"
    assert video_of({}, "q.json", None) == sets / "two.mp4", "the only one"
    assert video_of({}, "q.json", films / "one.mp4") == films / "one.mp4", "one video for all"
    assert video_of({"video": "two.mkv"}, "q.json", films / "one.mp4") == films / "two.mkv"
    assert video_of({"video": None}) is None and video_of({"videos": []}) is None
    touch(films / "still.png")
    assert video_of({"images": ["still.png"]}) is None
    with pytest.raises(BadLines) as bad:
        video_of({}, "q.json")
    assert bad.value.problems == [
        f"{sets / 'q.json'}: question 1: it names no video, and {films} holds 2, none of them q.mp4"
    ]
    with pytest.raises(InputError, match="no such folder of videos"):
        video_of({}, videos=tmp_path / "absent")


def test_files_of_one_name_in_two_folders_are_told_apart(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "board.mp4", tmp_path / "b" / "board.mp4")
    files = [write(tmp_path / folder / "board.json", PLAIN) for folder in "ab"]
    with pytest.raises(BadLines) as bad:
        read_questions(files)
    assert "board.mp4 is another file than" in bad.value.problems[0]


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4")
    file = write(
        tmp_path / "q.json",
        {"question": "x"},
        {"question": "x", "answer": ""},
        {"question": "x", "answer": "C", "options": ["red", "blue"]},
        {"question": "x", "answer": "A", "options": ["red"]},
        {"question": "x", "answer": "A", "options": {"AB": "red", "C": "blue"}},
        {"question": "x", "answer": "lots", "kind": "number"},
        {"question": "x", "answer": "3", "tolerance": "some"},
        {"question": "x", "answer": "3", "kind": "exact", "tolerance": 1},
        {"question": "x", "start_s": 4, "end_s": 4},
        {"question": "x", "answer": "y", "start_s": 5, "end_s": 4},
        {"question": "x", "answer": "y", "start_s": 5},
        {"question": "x", "answer": "y", "kind": "open"},
        {"question": "x", "answer": "y", "anwser": "z"},
        {"question": "x", "answer": True},
        {"question": "x", "answer": "y", "id": "same"},
        {"question": "z", "answer": "y", "id": "same"},
        {"question": "x", "answer": "y", "video": "absent.mp4"},
        {"answer": "y"},
    )
    with pytest.raises(BadLines) as bad:
        read_questions([file])
    told = [each.removeprefix(f"{file}: question ") for each in bad.value.problems]
    expected = [
        "1: kind exact: it has no answer",
        "2: kind exact: it has no answer",
        "3: answer 'C' is none of the options",
        "4: kind choice: give 2 to 26 options",
        "5: kind choice: give 2 to 26 options",
        "6: answer 'lots' holds no number",
        "7: tolerance 'some': write 0.5",
        "8: kind exact has no tolerance",
        "9: kind interval: start_s and end_s are the answer",
        "10: it ends at 4 s, before it starts at 5 s",
        "11: it has one of start_s and end_s",
        "12: kind: Input should be",
        "13: unknown key 'anwser': did you mean answer?",
        "14: answer",
        "16: id 'same' is that of question",
        "17: no such video:",
        "18: it asks nothing",
    ]
    heads = [line.split(":")[0] for line in told]
    assert list(dict.fromkeys(heads)) == [line.split(":")[0] for line in expected]
    for line in expected:
        assert any(each.startswith(line) for each in told), (line, told)


@pytest.mark.parametrize(
    ("text", "expected"), [("", "holds no question"), ("[]", "holds no question"), ("[{]", "is no JSON")]
)
def test_files_that_hold_none(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "q.json").write_text(text)
    with pytest.raises(InputError, match=expected):
        read_questions([tmp_path / "q.json"])
    with pytest.raises(InputError, match="cannot be read"):
        read_questions([tmp_path / "absent.json"])
