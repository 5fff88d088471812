"""``keyeloop ask``: a run goes on in another process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from keyeloop.agent.agent import Agent
from keyeloop.agent.builtin import builtin_tools
from keyeloop.agent.models import recorded_model
from keyeloop.agent.user_tools import load_tool
from keyeloop.model_backend.scripted import Script, ScriptedBackend, call
from keyeloop.runtime.errors import InputError
from keyeloop.runtime.journal.lines import parse_line, sealed
from keyeloop.runtime.trajectory import Trajectory
from tests.agent.test_cli import SECOND, TOOLS_PY, keyeloop
from tests.tools.moving_pictures import write_video

FIRST: list[Script] = [call("clip_video", video="video-1", start_s=0.4, end_s=0.4), "10 [f1]"]


@pytest.fixture
def two_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of two questions to replay, in a working folder of its own."""
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "board.mp4", SECOND)
    (tmp_path / "tools.py").write_text(TOOLS_PY)
    tools = [*builtin_tools({"video"}), load_tool("tools.py:file_number")]
    agent = Agent(ScriptedBackend([*FIRST, call("file_number", number=10), "filed [f1]"]), tools, runs="recorded")
    first = agent.run_sync("read the number", video="board.mp4")
    return first.ask_sync("file it").run


def test_ask_goes_on_with_the_recorded_model(two_questions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tool = ("--tool", "tools.py:file_number")
    keyeloop("run", "read the number", "--video", "board.mp4", *tool, "--model", f"replay:{two_questions}", "--json")
    first = json.loads(capsys.readouterr().out)
    Path("board.mp4").unlink()
    assert keyeloop("ask", Path(first["run"]).name, "file it", *tool, "--json") == 0
    shown = capsys.readouterr()
    told = json.loads(shown.out)
    assert (told["answer"], told["status"], told["run"]) == ("filed", "answered", first["run"])
    assert told["citations"][0]["time_s"] == 0.4 and told["citations"][0]["seen"]
    assert set(told) == set(first) and f"{first['run']}, question 2" in shown.err
    assert keyeloop("show", first["run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "read the number" and "file it" in lines and lines[-1].startswith("answered: 2 steps, ")
    assert [line for line in lines if line.startswith("question 2, scripted, ")]


def test_wrong_asking_is_one_line(two_questions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = len((two_questions / "journal.jsonl").read_text().splitlines())
    replay = ("--model", f"replay:{two_questions}")
    for arguments, code, expected in (
        (("ask", "nowhere", "?"), 2, "no run in nowhere: name the folder of a run"),
        (("ask", two_questions, "?"), 2, "scripted, the model of recorded"),
        (
            ("ask", two_questions, "?", *replay),
            2,
            "had the tools file_number, which are not given now: give them again",
        ),
        (("ask", two_questions), 2, "question"),
        (("ask", two_questions, " ", *replay, "--tool", "tools.py:file_number"), 2, "the question is empty"),
        (("ask", two_questions, "?", "--model", "no-such-model"), 2, "no model"),
    ):
        assert keyeloop(*arguments) == code
        shown = capsys.readouterr()
        assert expected in shown.err and shown.err.count("\n") == 1 and shown.out == "", arguments
    assert len((two_questions / "journal.jsonl").read_text().splitlines()) == lines


def test_the_model_of_a_run_is_found_again(tmp_path: Path) -> None:
    def recorded(model: str, name: str | None) -> str:
        answer = Agent(ScriptedBackend(["x"], model=model), [], runs=tmp_path).run_sync("?")
        journal = answer.run / "journal.jsonl"
        first, *rest = journal.read_bytes().splitlines(keepends=True)
        start = parse_line(first)
        assert start["config"]["model"] is None
        start["config"]["model"] = name
        journal.write_bytes(b"".join((sealed(json.dumps(start).encode()), *rest)))
        return recorded_model(Trajectory.read(answer.run))

    assert recorded("keye-tiny", None) == "keye-tiny", "as older records have it"
    assert recorded("http://127.0.0.1:8000/v1#keye", None) == "http://127.0.0.1:8000/v1#keye"
    assert recorded("checkpoint", "/models/checkpoint") == "/models/checkpoint"
    with pytest.raises(InputError, match=r"scripted, the model of .*, cannot be loaded by name: name one with --model"):
        recorded("scripted", None)
