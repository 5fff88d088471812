"""Evaluations on the command line: reported, resumed after a kill, compared."""

from __future__ import annotations

import json
import math
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from keyeloop.agent import models
from keyeloop.agent.agent import Agent
from keyeloop.agent.cli import main
from keyeloop.agent.evaluation.comparison import compare
from keyeloop.agent.evaluation.row import read_rows
from keyeloop.model_backend.base import Request
from keyeloop.model_backend.scripted import ScriptedBackend, Spoken
from keyeloop.runtime.errors import InputError
from keyeloop.runtime.trajectory import Trajectory
from keyeloop.runtime.wire import from_wire
from tests.agent.batch_program import answer as recorded
from tests.agent.batch_program import start
from tests.tools.moving_pictures import write_video

ROOT = Path(__file__).resolve().parents[2]


def answer(request: Request) -> Spoken:
    """``right`` where the last word of the question is not ``hard``; a judge that is never content."""
    if request.messages[0].text.startswith("You judge"):
        return '{"verdict": "wrong", "why": "never content"}'
    return "wrong [f1]" if request.messages[1].text.endswith("hard") else "right [f1]"


def another_answer(request: Request) -> Spoken:
    """Right about what is hard and about the first question only."""
    question = request.messages[1].text.splitlines()[-1]
    return "right" if "easy" not in question or question.startswith("0") else "no"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two short films, and a model's name that stands for the scripted one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(models, "load_model", lambda model: ScriptedBackend(answer))
    run = Agent(ScriptedBackend(["x"]), [], runs="recorded").run_sync("?").run
    run.rename("recorded/one")
    monkeypatch.setenv("KEYELOOP_MODEL", "replay:recorded/one")
    (tmp_path / "films").mkdir()
    for name in "ab":
        write_video(tmp_path / "films" / f"{name}.mp4", [0, 40])
    return tmp_path


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main(["eval", *map(str, arguments)])
    return int(left.value.code or 0)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(rows))
    return path


def films(*words: str) -> list[dict[str, Any]]:
    """A question for each word, on the two films in turn."""
    return [
        {"id": f"q{number}", "question": f"{number} {word}", "answer": "right", "video": f"{'ab'[number % 2]}.mp4"}
        for number, word in enumerate(words)
    ]


def test_the_tables_say_what_was_right_and_how_to_open_what_was_not(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")  # nothing of the table is cut there
    asked = write(place / "set.json", [*films("easy", "hard", "easy"), {**films("x")[0], "id": "j", "kind": "judged"}])
    assert run(asked, "--videos", "films", "--judge", "replay:recorded/one", "--concurrency", 1) == 0
    shown = capsys.readouterr().out.splitlines()
    cells = {words[0]: words[1:] for line in shown if len(words := line.split()) == 9}
    assert cells["exact"][:3] == ["3", "66.7", "44.4"] and cells["judged"][:2] == ["1", "0.0"]
    assert cells["all"][:2] == ["4", "50.0"]
    out = place / "evals" / "set-replay-recorded-one"
    rows = {row.id: row for row in read_rows(out)}
    assert any(line.startswith("1/4 0 easy answered, ") for line in shown)
    assert "runs: 4 answered" in shown and "wrong: 2 of 4 answers" in shown
    assert "errors are clustered by 2 videos, which are few: the errors are rough" in shown
    assert any(line.startswith("judged by scripted: 1 verdict, ") for line in shown)
    at = shown.index("1 hard")
    assert shown[at + 1] == "  wanted right; said wrong"
    command = shown[at + 2].split()
    assert command[:2] == ["keyeloop", "show"] and Trajectory.read(Path(command[2])).question == "1 hard"
    assert rows["q1"].run is not None and Path(command[2]) == out.relative_to(place) / rows["q1"].run
    with pytest.raises(SystemExit) as left:
        main(command[1:])
    assert not left.value.code and "1 hard" in capsys.readouterr().out


def test_json_ends_the_output_and_nothing_is_asked_twice(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = write(place / "set.json", films("easy", "hard", "easy"))
    command = (asked, "--videos", "films", "--out", "ev", "--limit", 2, "--no-tools", "--json")
    assert run(*command) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["folder"] == "ev" and first["all"]["right"]["n"] == 2
    assert first["setting"]["looks"] == "whole video, no tools" and first["setting"]["model"] == "replay:recorded/one"
    runs = [Trajectory.read(folder) for folder in (place / "ev" / "runs").glob("[!.]*")]
    assert len(runs) == 2 and not any(each.start.tools for each in runs)
    assert not any("tool" in from_wire(each.start.messages[0]).text for each in runs), "it is told of none"
    assert run(*command) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == first and "2 of 2 answers are in ev already" in shown.err
    assert len(list((place / "ev" / "runs").glob("[!.]*"))) == 2
    assert run(asked, "--videos", "films", "--out", "ev") == 2
    assert (
        "ev/answers.jsonl has answers of another looks (whole video, no tools, now with tools)"
        in capsys.readouterr().err
    )


def test_limits_hold_for_every_run_and_are_part_of_the_setting(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = write(place / "set.json", films("easy", "hard"))
    limits = ("--max-seconds", 30, "--max-turns", 2, "--max-tokens", 50)
    assert run(asked, "--videos", "films", "--out", "ev", *limits, "--json") == 0
    setting = json.loads(capsys.readouterr().out)["setting"]
    assert (setting["limits"]["seconds"], setting["limits"]["turns"], setting["max_tokens"]) == (30, 2, 50)
    for folder in (place / "ev" / "runs").glob("[!.]*"):
        assert Trajectory.read(folder).start.config["limits"]["seconds"] == 30
    assert run(asked, "--videos", "films", "--out", "ev", "--max-tokens", 50) == 2
    assert "has answers of another limits" in capsys.readouterr().err


def test_wrong_inputs_are_told_before_anything_is_asked(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = write(place / "good.json", films("easy"))
    judged = write(place / "judged.json", [{**films("easy")[0], "kind": "judged"}])
    bad = write(place / "bad.json", [{"question": "x"}, {"anwser": "y"}])
    for arguments, expected in (
        ((), "no questions: name a file"),
        (("absent.json",), "cannot be read"),
        ((good,), "1 bad line in good.json"),
        ((bad, "--videos", "films"), "2 bad lines"),
        ((judged, "--videos", "films"), "name a model that judges"),
        ((good, "--videos", "films", "--judge", "no-such-model"), "no model"),
        ((judged, "--videos", "films", "--judge", "replay:recorded/one", "--judge-prices", "dear"), "judge-prices"),
        ((good, "--videos", "films", "--no-tools", "--tool", "a.py:b"), "contradict each other"),
        ((good, "--compare", "a", "b"), "leave the questions out"),
        (("--compare", "a", "b"), "no evaluation in a"),
    ):
        assert run(*arguments) == 2, expected
        assert expected.replace("good.json", str(good)) in capsys.readouterr().err, expected
    assert not list(place.glob("evals/*/runs/*"))


def test_a_failed_run_is_a_wrong_answer_and_the_exit_tells(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = write(place / "set.json", films("easy", "easy"))
    monkeypatch.setattr(models, "load_model", lambda model: ScriptedBackend(["right"]))
    assert run(asked, "--videos", "films", "--concurrency", 1) == 1
    shown = capsys.readouterr().out
    assert "runs: 1 answered, 1 failed" in shown and "failed: BackendError: the script has 1 replies" in shown
    monkeypatch.setattr(models, "load_model", lambda model: ScriptedBackend(answer))
    assert run(asked, "--videos", "films", "--retry-failed") == 0
    assert "runs: 2 answered" in capsys.readouterr().out


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_after_a_kill_the_same_command_asks_only_what_is_left(
    place: Path, ending: signal.Signals, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["quick"] * 4 + ["slow"] * 2
    rows = [
        {"id": f"q{number}", "question": f"{word} n{number}", "answer": f"you asked n{number}", "video": None}
        for number, word in enumerate(words)
    ]
    asked, answers = write(place / "set.json", rows), place / "ev" / "answers.jsonl"
    process = start("eval", asked, "--out", "ev", "--epochs", 2, "--concurrency", 3, nap_s=600)
    until_s = time.monotonic() + 60
    while not answers.exists() or answers.read_bytes().count(b"\n") < 4:
        assert process.poll() is None and time.monotonic() < until_s, process.communicate()
        time.sleep(0.01)
    process.send_signal(ending)
    _, err = process.communicate(timeout=30)
    if ending is signal.SIGINT:
        assert process.returncode == 130
        assert err == "interrupted; what was answered is kept in ev: the same command goes on\n"
    kept = answers.read_bytes().count(b"\n")
    assert not (place / "ev" / "report.json").exists() and 4 <= kept < 12
    monkeypatch.setattr(models, "load_model", lambda model: ScriptedBackend(recorded))
    before = Counter(Path("asked").read_text().split())
    assert run(asked, "--out", "ev", "--epochs", 2) == 0
    assert f"{kept} of 12 answers are in ev already" in capsys.readouterr().out
    after = Counter(Path("asked").read_text().split())
    assert sum((after - before).values()) == 12 - kept, "none twice that had an answer"
    assert all(row.right for row in read_rows(place / "ev")) and len(read_rows(place / "ev")) == 12


def test_two_evaluations_are_compared_question_by_question(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [*films("easy", "hard", "hard", "easy", "easy"), {**films("x")[0], "id": "t", "family": "new"}]
    assert run(write(place / "set.json", rows), "--videos", "films", "--out", "one") == 0
    monkeypatch.setattr(models, "load_model", lambda model: ScriptedBackend(another_answer))
    rows[4]["answer"] = "left"
    rows[5]["id"] = "u"
    assert run(write(place / "set.json", rows), "--videos", "films", "--out", "two") == 0
    capsys.readouterr()
    assert run("--compare", "one", "two", "--json") == 0
    shown = capsys.readouterr()
    told = json.loads(shown.out)
    assert (told["only_first"], told["only_second"], told["unlike"]) == (1, 1, 1)
    whole = told["all"]
    assert (whole["first"], whole["second"], whole["better"], whole["worse"]) == (0.5, 0.75, 2, 1)
    steps = {"q0": 0, "q1": 1, "q2": 1, "q3": -1}
    sums = [sum(step - 0.25 for each, step in steps.items() if int(each[1]) % 2 == video) for video in (0, 1)]
    assert whole["difference"]["mean"] == 0.25 and whole["difference"]["clusters"] == 2
    assert whole["difference"]["error"] == pytest.approx(math.sqrt(2 * sum(each**2 for each in sums)) / 4)
    assert [each["id"] for each in told["changed"]] == ["q1", "q2", "q3"]
    worse = told["changed"][2]
    assert (worse["first"], worse["second"], worse["first_said"], worse["second_said"]) == (1, 0, "right", "no")
    assert Trajectory.read(Path(worse["second_run"])).question == "3 easy"
    assert "not compared: 1 question asked or wanted otherwise" in shown.err
    assert "3 easy\n  wanted right; A: right; B: no\n  keyeloop show one/runs/" in shown.err
    same = compare(Path("one"), Path("one"))
    assert same.all.difference.mean == same.all.difference.error == 0 and not same.changed
    write(place / "set.json", [{**rows[0], "id": "other"}])
    assert run("set.json", "--videos", "films", "--out", "three") == 0
    with pytest.raises(InputError, match="no question in common"):
        compare(Path("one"), Path("three"))
