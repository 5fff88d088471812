"""``run --resume``, ``replay``, ``diff``, ``stats`` and ``journal`` as a person types them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from keyeloop.agent.agent import Agent
from keyeloop.agent.builtin import builtin_tools
from keyeloop.agent.user_tools import load_tool
from keyeloop.model_backend.scripted import Script, ScriptedBackend, call
from keyeloop.runtime.trajectory import Trajectory
from tests.agent.cut_runs import cut, told
from tests.agent.test_cli import SECOND, TOOLS_PY, keyeloop
from tests.agent.test_record import hanging_run
from tests.tools.moving_pictures import write_video

SCRIPT: list[Script] = [
    call("clip_video", video="video-1", start_s=0.4, end_s=0.8),
    call("file_number", number=10),
    "filed [f1]",
]
TOOL = ("--tool", "tools.py:file_number")


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with two tools, in a working folder of its own."""
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "board.mp4", SECOND)
    (tmp_path / "tools.py").write_text(TOOLS_PY)
    tools = [*builtin_tools({"video"}), load_tool("tools.py:file_number")]
    return Agent(ScriptedBackend(SCRIPT), tools).run_sync("file the number", video="board.mp4").run


def test_a_run_that_was_cut_off_is_resumed(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = cut(whole, 6, Path("runs"), torn=b"{")
    assert keyeloop("show", folder) == 0 and "in flight" in capsys.readouterr().out
    assert keyeloop("run", "--resume", folder.name, *TOOL, "--model", f"replay:{whole}", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["answer"], answer["status"], Path(answer["run"])) == ("filed", "answered", folder)
    assert told(folder) == told(whole)
    for arguments, expected in (
        (("run", "--resume", folder, *TOOL, "--model", f"replay:{whole}"), "has ended (answered): there is nothing"),
        (("run", "--resume", folder), "has ended (answered): there is nothing"),
        (("run", "what?", "--resume", folder), "--resume takes no question"),
        (("run",), "the question is missing"),
        (("run", "--resume", "nowhere"), "no run in nowhere"),
    ):
        assert keyeloop(*arguments) == 2
        shown = capsys.readouterr()
        assert expected in shown.err and shown.err.count("\n") == 1, arguments


def test_a_run_is_replayed_with_and_without_its_tools(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert keyeloop("replay", whole.name) == 0
    assert capsys.readouterr().out == "the same 12 events, model and tools from the record\n"
    assert keyeloop("replay", whole, "--tools", *TOOL) == 0
    assert "no difference in 3 steps" in capsys.readouterr().out
    Path("tools.py").write_text(TOOLS_PY.replace("filed", "put"))
    assert keyeloop("replay", whole, "--tools", *TOOL, "--keep", "again", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert [(one["step"], one["what"]) for one in found["differences"]] == [(2, "result of file_number")]
    assert keyeloop("diff", whole, "again") == 1
    assert "step 2, result of file_number\n  - filed" in capsys.readouterr().out
    assert keyeloop("diff", whole, whole) == 0
    assert keyeloop("replay", whole, "--tools") == 2
    assert "had the tools file_number, which are not given now" in capsys.readouterr().err


def test_a_run_is_forked(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = [*SCRIPT[:1], "nothing to file [f2]"]
    tools = [*builtin_tools({"video"}), load_tool("tools.py:file_number")]
    otherwise = Agent(ScriptedBackend(other), tools, runs="other").run_sync("file the number", video="board.mp4")
    model = ("--model", f"replay:{otherwise.run}")
    assert keyeloop("replay", whole.name, "--from", "2", *model, *TOOL, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["answer"] == "nothing to file" and answer["citations"][0]["seen"]
    run = Trajectory.read(Path(answer["run"]))
    assert run.start.fork is not None and run.start.fork.run_id == whole.name and len(run.steps) == 2
    for arguments, expected in (
        (("--from", "9", *model, *TOOL), "has the steps 1 to 3"),
        (("--from", "2", "--tools"), "leave --tools and --keep out"),
        (("--seed", "3"), "are for --from STEP"),
    ):
        assert keyeloop("replay", whole, *arguments) == 2
        assert expected in capsys.readouterr().err


def test_runs_are_counted(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut(whole, 6, Path("runs"))
    Path("runs/bad").mkdir()
    Path("runs/bad/journal.jsonl").write_text("{}\n")
    assert keyeloop("stats", "--tools", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    (model,) = found["models"]
    assert (model["runs"], model["ends"], model["calls"]) == (2, {"answered": 1, "in flight": 1}, 3)
    assert {row["tool"]: row["calls"] for row in found["tools"]} == {"clip_video": 2, "file_number": 1}
    assert [one["run"] for one in found["unreadable"]] == ["bad"] and found["runs"] == 3
    assert keyeloop("stats") == 0 and "1 answered, 1 in flight" in capsys.readouterr().out
    assert keyeloop("stats", "nowhere") == 2


def test_records_are_checked_packed_and_cleaned_up(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert keyeloop("journal", "verify") == 0
    assert capsys.readouterr().out == "1 runs, 12 events, 4 pictures checked: none damaged\n"
    assert keyeloop("journal", "pack", whole.name, "one.keyeloop") == 0
    assert keyeloop("journal", "unpack", "one.keyeloop", "--runs", "elsewhere") == 0
    assert told(Path("elsewhere") / whole.name) == told(whole)
    picture = next(path for path in (whole / "media").rglob("*") if path.is_file())
    picture.unlink()
    capsys.readouterr()
    assert keyeloop("journal", "verify", whole.name) == 1
    assert picture.name in capsys.readouterr().out
    with (whole / "journal.jsonl").open("r+b") as file:
        file.seek(file.seek(0, 2) - 3000)
        file.write(b"x")
    assert keyeloop("show", whole) == 1
    shown = capsys.readouterr()
    assert "is damaged: line" in shown.err and "file the number" in shown.out
    shutil.rmtree(whole)
    assert keyeloop("journal", "gc", "--dry-run") == 0 and "4 files would go" in capsys.readouterr().out
    assert keyeloop("journal", "gc") == 0 and "4 files removed" in capsys.readouterr().out
    assert keyeloop("journal", "schema") == 0
    assert json.loads(capsys.readouterr().out)["discriminator"]["propertyName"] == "kind"


def test_a_run_packed_with_its_video_is_played_again_elsewhere(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert keyeloop("journal", "pack", whole.name, "one.keyeloop", "--with-video") == 0
    Path("board.mp4").unlink()
    shutil.rmtree("runs")
    assert keyeloop("journal", "unpack", "one.keyeloop") == 0
    capsys.readouterr()
    assert keyeloop("replay", whole.name, "--tools", *TOOL) == 0
    assert capsys.readouterr().out.startswith("no difference in 3 steps")
    assert keyeloop("replay", whole.name, "--from", "1", "--model", f"replay:{whole}", *TOOL, "--json") == 0
    fork = Path(json.loads(capsys.readouterr().out)["run"])
    assert len(Trajectory.read(fork).looks) == len(Trajectory.read(whole).looks) > 0
    assert next((fork / "sources").iterdir()).stat().st_nlink == 2, "a link, not another copy"
    assert keyeloop("view", whole.name, "--export", "page.html") == 0
    assert "video-1 inside" in capsys.readouterr().out
    assert keyeloop("journal", "pack", fork.name, "two.keyeloop", "--with-video") == 0
    assert keyeloop("journal", "verify") == 0


def test_a_run_killed_before_its_first_line_is_told_to_run_again(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    early = Path("runs") / "early"
    early.mkdir()
    for content in ("", '{"kind":"run_start","seq":0'):
        (early / "journal.jsonl").write_text(content)
        for command in (("run", "--resume", "early"), ("show", "early"), ("replay", "early"), ("diff", "early", whole)):
            assert keyeloop(*command) == 2
            shown = capsys.readouterr()
            assert "no whole line is recorded in runs/early/journal.jsonl" in shown.err, command
            assert "run the task again" in shown.err and shown.err.count("\n") == 1


def test_show_reads_a_killed_run_up_to_the_step_in_flight(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = hanging_run(tmp_path / "killed")
    process.kill()
    process.communicate()
    (run,) = (tmp_path / "killed").glob("[!.]*")
    assert keyeloop("show", run) == 0
    shown = capsys.readouterr().out
    assert "   → look(at_s=7)\n   ← f1 at 7.0 s + 1 picture" in shown
    assert "   → add(a=1, b=2)\n   ← 3 " in shown
    assert " 3 asked with " in shown and "no reply is recorded" in shown
    assert "in flight: the record has no end" in shown.splitlines()[-1]
    with (run / "journal.jsonl").open("ab") as journal:
        journal.write(b'{"seq": 9, "kind": "repl')
    assert keyeloop("show", run) == 0
