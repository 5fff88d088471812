"""A batch against a real server that refuses, dawdles, breaks and hangs up: every task ends, a kill repeats nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keyeloop.agent.cli import main
from keyeloop.model_backend.openai_chat import sending
from keyeloop.runtime.trajectory import Trajectory
from tests.agent.memory_folder import memory_folder
from tests.model_backend.loopback_server import Play, Received, called, delta, failed, loopback, said

ROOT = Path(__file__).resolve().parents[2]
TASKS, CONCURRENCY = 200, 16
PAUSE_S = 0.01
"""Between the client's tries, shortened from half a second."""
PROGRAM = f"""
from keyeloop.agent.cli import main
from keyeloop.model_backend.openai_chat import sending
sending.FIRST_PAUSE_S = {PAUSE_S}
main()
"""
FAILURES = {
    2: "answered 500: out of memory (tried 5 times)",
    3: "the reply had begun, so it was not asked again",
    5: "answered 403: not you",
}
"""Reason by the last digit of the task; the others are answered."""


class Faults:
    """The server's side: what becomes of a request, by the number of its task and how often that was asked."""

    def __init__(self) -> None:
        self.asked: Counter[int] = Counter()

    def __call__(self, request: Received) -> Play:
        found = re.search(r"number (\d+)", json.dumps(request.json["messages"]))
        if found is None:  # the client finds out what the server takes
            return said("ok", prompt=50)
        number = int(found[1])
        self.asked[number] += 1
        first = self.asked[number] == 1
        good = said("it is ", str(number))
        match number % 10:
            case 0 if first:
                return failed(429, "too many requests", Retry_After="0.01")
            case 1 if self.asked[number] < 3:
                return failed(500, "busy")
            case 2:
                return failed(500, "out of memory")
            case 3:
                return Play(pieces=(delta(content="it is "),), cut=True)
            case 4:
                return Play(pieces=(good.pieces[0], 0.05, *good.pieces[1:]))
            case 5:
                return failed(403, "not you")
            case 6 if first:
                return Play(cut=True)
            case 7 if first:
                return called("no_such_tool", "{}")
        return good


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with the settings of a server that is known already."""
    with memory_folder() as folder:
        monkeypatch.chdir(folder)
        (folder / "keyeloop.toml").write_text('pictures = "omit"\ncontext_tokens = 8192\n')
        monkeypatch.setattr(sending, "FIRST_PAUSE_S", PAUSE_S)
        yield folder


def results(path: Path) -> dict[str, dict[str, Any]]:
    """Whole lines by id, each of them once."""
    lines = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []
    told = {line["id"]: line for line in lines}
    assert len(told) == len(lines), "a task has two results"
    return told


def test_200_tasks_against_a_faulty_server_killed_half_way(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks, out = place / "tasks.jsonl", place / "tasks.results.jsonl"
    tasks.write_text("".join(json.dumps({"id": n, "task": f"number {n}"}) + "\n" for n in range(TASKS)))
    faults = Faults()
    with loopback(faults) as server:
        command = ["batch", str(tasks), "--model", f"{server.address}#m", "--concurrency", str(CONCURRENCY)]
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *command],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        until_s = time.monotonic() + 60
        while len(results(out)) < TASKS // 2:
            assert process.poll() is None and time.monotonic() < until_s, process.communicate()
            time.sleep(0.005)
        process.kill()
        process.communicate()
        done = results(out)
        before = {number: faults.asked[number] for number in range(TASKS)}
        assert TASKS // 2 <= len(done) < TASKS
        with pytest.raises(SystemExit) as left:
            main(command)
    assert left.value.code == 1
    told = results(out)
    assert set(told) == {str(number) for number in range(TASKS)}
    assert all(told[name] == line for name, line in done.items())
    assert all(faults.asked[int(name)] == before[int(name)] for name in done), "what was done is not asked again"
    for number in range(TASKS):
        line, reason = told[str(number)], FAILURES.get(number % 10)
        if reason is None:
            assert (line["status"], line["answer"], line["reason"]) == ("answered", f"it is {number}", ""), line
        else:
            assert (line["status"], line["answer"]) == ("failed", "") and reason in line["reason"], line
        assert Trajectory.read(place / line["run"]).status == line["status"]
    shown = capsys.readouterr().out
    assert f"{len(done)} of {TASKS} have results" in shown
    assert re.search(r"│ answered +│ +140 ", shown) and re.search(r"│ failed +│ +60 ", shown)
    assert "and 50 more failures" in shown
