"""A batch against a real server that refuses, dawdles, breaks and hangs up: every task ends, a kill repeats nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from keyeloop.agent.agent import Agent
from keyeloop.agent.cli import main
from keyeloop.model_backend.served import sending
from keyeloop.model_backend.served.sending import TRIES
from keyeloop.runtime.trajectory import Trajectory
from tests.agent.memory_folder import memory_folder
from tests.model_backend.loopback_server import LoopbackServer, Play, Received, called, delta, failed, loopback, said

ROOT = Path(__file__).resolve().parents[2]
TASKS, CONCURRENCY = 200, 16
PAUSE_S = 0.05
"""Between the client's tries, shortened from half a second."""
PATIENCE_S = 5
"""How long the client waits for the next piece of a reply, shortened from ten minutes."""
PROGRAM = f"""
from keyeloop.agent.cli import main
from keyeloop.model_backend.served import sending
sending.FIRST_PAUSE_S = {PAUSE_S}
main()
"""
BEGUN = "the reply had begun, so it was not asked again"
REFUSED = re.compile(r"cannot be reached .* is the server running, and the port right\? \(tried 5 times\)")
LEAST_REFUSED = 8


def expected_reason(number: int) -> str | None:
    """Why a task fails, by its number; None for those that are answered."""
    if number in (9, 109):
        return f"sent nothing for {PATIENCE_S} s"
    if number in (59, 159):
        return f"sent nothing for {PATIENCE_S} s; {BEGUN}"
    by_digit = {2: "answered 500: out of memory (tried 5 times)", 3: BEGUN, 5: "answered 403: not you"}
    return by_digit.get(number % 10)


class Faults:
    """The server's side: what becomes of a request, by the number of its task and how often that was asked."""

    def __init__(self) -> None:
        self.asked: Counter[int] = Counter()
        self.mended = False
        self.server: LoopbackServer | None = None
        self.requests_until_gone: int | None = None
        """After so many requests more the server takes no connection until the test opens it again."""

    def __call__(self, request: Received) -> Play:
        found = re.search(r"number (\d+)", json.dumps(request.json["messages"]))
        if found is None:  # the client finds out what the server takes
            return said("ok", prompt=50)
        number = int(found[1])
        self.asked[number] += 1
        if self.requests_until_gone is not None and self.server is not None:
            self.requests_until_gone -= 1
            if self.requests_until_gone == 0:
                self.server.refuse()
        return said("it is ", str(number)) if self.mended else self.fault(number)

    def fault(self, number: int) -> Play:
        first = self.asked[number] == 1
        good = said("it is ", str(number))
        if number % 50 == 9:
            return Play(pieces=(*([delta(content="it is ")] if number % 100 == 59 else []), 60.0))
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


def start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *command],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "KEYELOOP_READ_SECONDS": str(PATIENCE_S)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_until(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    until_s = time.monotonic() + 120
    while not reached():
        if process.poll() is not None or time.monotonic() > until_s:
            process.kill()
            pytest.fail(process.communicate()[0])
        time.sleep(0.005)


def refused(told: dict[str, dict[str, Any]]) -> set[str]:
    return {name for name, line in told.items() if REFUSED.search(line["reason"])}


def check_line(line: dict[str, Any], reason: str | None, place: Path) -> None:
    """An answer or the reason that was to come, and a whole record of the run that says the same."""
    number = line["id"]
    if reason is None:
        assert (line["status"], line["answer"], line["reason"]) == ("answered", f"it is {number}", ""), line
    else:
        assert (line["status"], line["answer"]) == ("failed", "") and reason in line["reason"], line
    assert Trajectory.read(place / line["run"]).status == line["status"]


def test_200_tasks_against_a_faulty_server_killed_half_way(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks, out = place / "tasks.jsonl", place / "tasks.results.jsonl"
    tasks.write_text("".join(json.dumps({"id": n, "task": f"number {n}"}) + "\n" for n in range(TASKS)))
    faults = Faults()
    with loopback(faults) as server:
        faults.server = server
        command = ["batch", str(tasks), "--model", f"{server.address}#m", "--concurrency", str(CONCURRENCY)]

        process = start(command)
        wait_until(lambda: len(results(out)) >= TASKS // 2, process)
        process.kill()
        process.communicate()
        done, asked = results(out), faults.asked.copy()
        assert TASKS // 2 <= len(done) < TASKS

        faults.requests_until_gone = 20
        process = start(command)
        wait_until(lambda: len(refused(results(out))) >= LEAST_REFUSED, process)
        server.reopen()
        shown, _ = process.communicate(timeout=120)
        assert process.returncode == 1 and f"{len(done)} of {TASKS} have results" in shown, shown
        told = results(out)
        assert set(told) == {str(number) for number in range(TASKS)}
        assert all(told[name] == line for name, line in done.items())
        assert all(faults.asked[int(name)] == asked[int(name)] for name in done), "what was done is not asked again"
        assert not refused(done)
        for name, line in told.items():
            reason = expected_reason(int(name))
            spent = name not in done and line["reason"].endswith("(tried 5 times)")  # while no server was there
            check_line(line, "(tried 5 times)" if spent else reason, place)
            if reason is not None and BEGUN in reason:
                assert faults.asked[int(name)] <= 1 + (name not in done), "a reply that had begun is not asked again"

        faults.mended = True
        answered = {int(name) for name, line in told.items() if line["status"] == "answered"}
        asked = faults.asked.copy()
        with pytest.raises(SystemExit) as left:
            main([*command, "--retry-failed"])
    assert left.value.code in (0, None)
    mended = results(out)
    assert set(mended) == set(told)
    for number in range(TASKS):
        check_line(mended[str(number)], None, place)
        assert faults.asked[number] == asked[number] + (number not in answered)
    shown = capsys.readouterr().out
    assert f"{len(answered)} of {TASKS} have results" in shown
    assert re.search(rf"│ answered +│ +{TASKS} ", shown) and re.search(r"│ failed +│ +0 ", shown)


async def test_where_no_server_answers_many_tasks_wait_together(place: Path) -> None:
    with loopback(lambda _: failed(503, "down")) as server:
        async with Agent(f"{server.address}#m", [], runs=place / "runs") as agent:
            outcomes = await agent.run_many([f"number {n}" for n in range(12)], concurrency=12)
    assert all(each.status == "failed" and "answered 503: down" in each.reason for each in outcomes)
    assert len(server.received) < 12 * TRIES / 2, "each task asked for itself what the server is"
