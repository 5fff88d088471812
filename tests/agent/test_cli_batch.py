"""Batches on the command line: what is refused, what is written down, and that a kill loses and repeats nothing."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from keyeloop.agent import models
from keyeloop.agent.agent import Agent
from keyeloop.agent.batch.result_file import ResultFile
from keyeloop.agent.batch.task_file import read_tasks
from keyeloop.agent.batch.view import BatchView, print_totals
from keyeloop.agent.cli import main
from keyeloop.model_backend.scripted import Script, ScriptedBackend, call
from keyeloop.runtime.errors import InputError
from keyeloop.runtime.trajectory import Trajectory
from tests.agent.batch_program import answer, start
from tests.tools.moving_pictures import write_video

ROOT = Path(__file__).resolve().parents[2]
TOOLS_PY = '''
def file_number(number: int) -> str:
    """File a number."""
    return f"filed {number}"
'''


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a run whose model's name will do; the scripted model answers in its place."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models, "load_model", lambda model: ScriptedBackend(answer))
    folder = Agent(ScriptedBackend(["x"]), [], runs="recorded").run_sync("?").run
    monkeypatch.setenv("KEYELOOP_MODEL", f"replay:{folder}")
    return tmp_path


def write_lines(path: Path, *lines: dict[str, Any] | str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def batch(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main(["batch", *map(str, arguments)])
    return int(left.value.code or 0)


def results(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_task_gets_a_line_and_the_table_counts_them(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_video(place / "board.mp4", [number * 40 for number in range(5)])
    tasks = write_lines(
        place / "set" / "tasks.jsonl",
        {"id": 7, "task": "first one"},
        "",
        {"question": "second two", "video": "../board.mp4", "videos": ["../board.mp4"]},
        {"id": "c", "task": "is broken"},
    )
    assert batch(tasks, "--concurrency", 1) == 1
    shown = capsys.readouterr().out.splitlines()
    first, second, third = results(place / "set" / "tasks.results.jsonl")
    assert (first["id"], first["status"], first["answer"]) == ("7", "answered", "you asked one")
    assert second["asked"] == {"task": "second two", "videos": ["../board.mp4", "../board.mp4"]}
    assert [source.name for source in Trajectory.read(place / second["run"]).start.inputs] == ["video-1", "video-2"]
    assert (third["status"], third["reason"]) == ("failed", "BackendError: the server is gone")
    assert third["model"] == "scripted" and Trajectory.read(place / third["run"]).status == "failed"
    assert shown[0].startswith("1/3 7 answered, ") and shown[0].endswith(" s: you asked one")
    cells = {words[1]: words[3::2] for line in shown if (words := line.split())[:1] == ["│"]}
    assert {row: told[0] for row, told in cells.items()} == {
        "answered": "2", "budget": "0", "stopped": "0", "failed": "1", "all": "3"
    }  # fmt: skip
    assert int(cells["all"][1].replace(",", "")) == sum(
        each["usage"]["input_tokens"] for each in (first, second, third)
    )
    assert shown[-2] == f"c: BackendError: the server is gone (keyeloop show {third['run']})"


def test_bad_lines_are_told_all_at_once_and_nothing_runs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = write_lines(
        place / "tasks.jsonl",
        {"id": "a", "task": "fine"},
        '{"task": "torn',
        {"id": "a", "task": "another"},
        {"task": "x", "vidoe": "a.mp4"},
        {"task": "x", "question": "y"},
        {"id": "b", "video": "board.mp4"},
        {"id": True, "task": "x"},
        '["task"]',
        {"task": "x", "video": "absent.mp4", "images": ["gone.png"], "documents": "nowhere"},
        {"task": "x", "videos": "board.mp4"},
    )
    assert batch(tasks) == 2
    shown = capsys.readouterr()
    *told, last = [line.replace(str(tasks), "T") for line in shown.err.splitlines()]
    expected = [
        "T:2: Invalid JSON: EOF",
        "T:3: id 'a' is that of line 1 too",
        "T:4: unknown key 'vidoe': did you mean video?",
        "T:5: it has a task and a question",
        "T:6: it asks nothing",
        "T:7: id: give it as text or as a whole number",
        "T:8: Input should be an object",
        f"T:9: no such video: {place / 'absent.mp4'}",
        f"T:9: no such image: {place / 'gone.png'}",
        f"T:9: no such folder of documents: {place / 'nowhere'}",
        "T:10: videos: Input should be a valid array",
    ]
    assert len(told) == len(expected), told
    assert [line[: len(start)] for line, start in zip(told, expected, strict=True)] == expected
    assert last == "error: 11 bad lines in T: nothing was run"
    assert shown.out == "" and not (place / "runs").exists() and not (place / "tasks.results.jsonl").exists()


def test_other_wrong_inputs_are_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = write_lines(place / "good.jsonl", {"id": "a", "task": "one"})
    empty = write_lines(place / "empty.jsonl", "")
    damaged = write_lines(place / "damaged.jsonl", "no result", {"id": "a", "status": "answered"})
    other = write_lines(place / "other.jsonl", {"id": "a", "status": "answered", "asked": {"task": "two"}})
    for arguments, expected in (
        (("absent.jsonl",), "the tasks in absent.jsonl cannot be read: No such file"),
        ((empty,), "holds no task"),
        ((good, "--out", damaged), "damaged.jsonl:1 is no result"),
        ((good, "--out", other), "has results of 'a' for other questions or inputs"),
        ((good, "--out", place), "is no regular file"),
        ((good, "--concurrency", 0), "concurrency"),
        ((good, "--model", "no-such-model"), "no model"),
        ((good, "--tool", "none.py:f"), "no such file: none.py"),
    ):
        assert batch(*arguments) == 2, expected
        said = capsys.readouterr().err
        assert expected in said and said.count("\n") == 1, said
    assert not (place / "runs").exists()


def test_what_has_a_result_is_not_run_again(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[dict[str, Any]] = [{"task": "first one"}, {"task": "is broken"}, {"task": "first one"}]
    tasks, out = write_lines(place / "tasks.jsonl", *lines), place / "kept" / "out.jsonl"
    assert batch(tasks, "--out", out) == 1
    before = out.read_bytes()
    assert len({each["id"] for each in results(out)}) == 3, "the same task twice is two tasks"
    assert batch(tasks, "--out", out) == 1 and out.read_bytes() == before
    assert "3 of 3 have results" in capsys.readouterr().out
    write_lines(tasks, {"task": "added four"}, *reversed(lines))
    assert batch(tasks, "--out", out) == 1
    assert out.read_bytes().startswith(before) and results(out)[3]["answer"] == "you asked four"
    assert Counter(Path("asked").read_text().split()) == {"one": 2, "broken": 1, "four": 1}
    assert batch(tasks, "--out", out, "--retry-failed") == 1
    assert Counter(Path("asked").read_text().split()) == {"one": 2, "broken": 2, "four": 1}
    assert len(results(out)) == 4 and [path.name for path in out.parent.iterdir()] == ["out.jsonl"]


def test_own_tools_join_those_that_fit_the_inputs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "tools.py").write_text(TOOLS_PY)
    write_video(place / "board.mp4", [0, 40])
    script: list[Script] = [call("file_number", number=4), "done", "seen"]
    monkeypatch.setattr(models, "load_model", lambda model: ScriptedBackend(script))
    tasks = write_lines(place / "tasks.jsonl", {"id": "a", "task": "file"}, {"task": "x", "video": "board.mp4"})
    assert batch(tasks, "--tool", "tools.py:file_number", "--concurrency", 1, "--runs", "mine") == 0
    ran = [Trajectory.read(place / each["run"]) for each in results(place / "tasks.results.jsonl")]
    assert [[spec.name for spec in run.start.tools] for run in ran] == [
        ["python", "file_number"],
        ["clip_video", "zoom", "python", "file_number"],
    ]
    assert ran[0].folder.parent == place / "mine" and ran[0].tool_calls == 1


def test_a_terminal_sees_a_bar_and_what_is_untrusted_cannot_steer_it() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100, legacy_windows=False)
    record = {"id": "a", "status": "answered", "answer": "4 \x1b[2J[red]\nsix", "reason": "", "seconds": 0.25}
    with BatchView(console, 3, 1) as view:
        view.on(record)
        view.on({**record, "id": "b", "status": "failed", "reason": "no [bold]way"})
    print_totals(console, [{**record, "usage": {"input_tokens": 1234, "output_tokens": 5, "cost": 0.25}}])
    shown = re.sub("\x1b[^a-zA-Z]*[a-zA-Z]", "", file.getvalue())
    assert "2/3 a answered, 0.2 s: 4 \\x1b[2J[red] six" in shown and "\x1b[2J" not in file.getvalue()
    assert "3/3 b failed, 0.2 s: no [bold]way" in shown and "1 failed" in shown
    assert re.search(r"all +│ +1 │ +1,234 │ +0 │ +5 │ +0\.2 │ +0\.25 │", shown)


def wait_for_results(process: subprocess.Popen[str], out: Path, count: int) -> None:
    """Until so many results are written, while ``slow`` tasks hang."""
    until_s = time.monotonic() + 30
    while not out.exists() or out.read_bytes().count(b"\n") < count:
        assert process.poll() is None and time.monotonic() < until_s, process.communicate()
        time.sleep(0.01)


def test_kill_9_and_again_finishes_the_rest_and_none_twice(place: Path) -> None:
    lines = [{"id": f"t{n}", "task": f"{'slow' if n % 5 == 4 else 'quick'} n{n}"} for n in range(20)]
    tasks, out = write_lines(place / "tasks.jsonl", *lines), place / "tasks.results.jsonl"
    process = start("batch", tasks, "--concurrency", 4, nap_s=600)
    wait_for_results(process, out, 16)
    while len(Path("asked").read_text().split()) < 20:
        time.sleep(0.01)
    with pytest.raises(InputError, match="another batch is writing"):
        ResultFile(out)
    process.kill()
    process.communicate()
    assert len(results(out)) == 16, "all but the slow ones"
    whole = out.read_bytes()
    out.write_bytes(whole[: whole.rindex(b'"status"')])  # as if the kill had come within the last line
    torn = json.loads(whole.splitlines()[-1])["id"]
    assert batch(tasks, "--concurrency", 4) == 0
    told = results(out)
    assert sorted(each["id"] for each in told) == sorted(line["id"] for line in lines)
    assert all(each["status"] == "answered" and each["answer"] == f"you asked n{each['id'][1:]}" for each in told)
    asked = Counter(Path("asked").read_text().split())
    again = {f"n{number}" for number in (4, 9, 14, 19)} | {f"n{torn[1:]}"}
    assert asked == {f"n{number}": 1 + (f"n{number}" in again) for number in range(20)}


def test_ctrl_c_closes_the_runs_and_says_how_to_go_on(place: Path) -> None:
    tasks = write_lines(place / "tasks.jsonl", {"task": "quick one"}, {"task": "slow two"}, {"task": "slow three"})
    out = place / "tasks.results.jsonl"
    process = start("batch", tasks, "--concurrency", 3, nap_s=600)
    wait_for_results(process, out, 1)
    while len(Path("asked").read_text().split()) < 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err == f"interrupted; 1 of 3 results are kept in {out}: the same command goes on with the rest\n"
    ends = Counter(Trajectory.read(run).status for run in (place / "runs").glob("[!.]*"))
    assert ends == {"answered": 1, "interrupted": 2} and len(results(out)) == 1


def test_a_results_file_without_its_last_line_end_keeps_that_line(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_bytes(b'{"id": "a", "status": "answered"}\n\n{"id": "b", "status": "failed"}')
    with ResultFile(out) as kept:
        kept.append({"id": "c", "status": "answered", "answer": "\ud800"})
    assert [each["id"] for each in results(out)] == ["a", "b", "c"]
    with ResultFile(out, again=["failed"]) as kept:
        assert list(kept.records) == ["a", "c"]
    with pytest.raises(InputError, match="no result"):
        out.write_bytes(b'{"id": "a"}\n')
        ResultFile(out)
    ResultFile(write_lines(out, {"id": "a", "status": "x"})).close()


def test_a_made_id_follows_what_is_asked_not_where_it_stands(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [{"task": "one"}, {"question": " one "}, {"task": "two"}, {"task": "one", "id": "x"}]
    ids = [each.task.id for each in read_tasks(write_lines(tmp_path / "a.jsonl", *lines))]
    assert ids[1] == f"{ids[0]}-2" and ids[3] == "x" and len(set(ids)) == 4
    turned = [each.task.id for each in read_tasks(write_lines(tmp_path / "b.jsonl", lines[2], lines[0]))]
    assert turned == [ids[2], ids[0]]


def test_limits_hold_for_every_task(place: Path) -> None:
    tasks = write_lines(place / "tasks.jsonl", {"task": "one"}, {"task": "two"})
    assert batch(tasks, "--max-seconds", 30, "--max-turns", 2, "--max-tokens", 50) == 0
    for record in results(place / "tasks.results.jsonl"):
        config = Trajectory.read(Path(record["run"])).start.config
        assert (config["limits"]["seconds"], config["limits"]["turns"]) == (30, 2)
        assert config["sampling"]["max_tokens"] == 50
