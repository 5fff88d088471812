"""Summaries kept between listings: what has not changed is not read again, what has is, and a bad cache is let be."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from keyeloop.runtime.clock import SystemClock
from keyeloop.runtime.events import RunEnded, RunStart, ToolReturned
from keyeloop.runtime.journal import Journal
from keyeloop.runtime.trajectory import list_runs, summarise
from keyeloop.runtime.trajectory.remembering import LEAST_RUNS
from keyeloop.runtime.wire import TextWire

COUNT = LEAST_RUNS + 5
AN_HOUR_NS = 3600 * 10**9


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As many runs as are worth keeping, an hour old."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for number in range(COUNT):
        with Journal.create(tmp_path / "runs" / f"run-{number}", SystemClock()) as journal:
            journal.append(RunStart(run_id=f"run-{number}", question=f"What is {number}?", model="m"))
            journal.append(ToolReturned(turn=1, call_id="c", name="n", parts=(TextWire(text="x"),)))
            journal.append(RunEnded(status="answered", answer="12"))
        age(journal.folder)
    return tmp_path / "runs"


def age(folder: Path) -> None:
    long_ago = time.time_ns() - AN_HOUR_NS
    os.utime(folder / "journal.jsonl", ns=(long_ago, long_ago))


def kept(runs: Path) -> list[Path]:
    return [path for path in (runs.parent / "cache").rglob("*") if path.is_file()]


def falsify(folder: Path) -> None:
    """Another answer under the same size, time and inode: what no record does, and what only reading it would show."""
    path = folder / "journal.jsonl"
    stamp = path.stat().st_mtime_ns
    data = path.read_bytes()
    with path.open("r+b") as file:
        file.write(data.replace(b'"12"', b'"99"'))
    os.utime(path, ns=(stamp, stamp))


def test_runs_that_have_not_changed_are_not_read_again(runs: Path) -> None:
    first = list_runs(runs)
    assert len(first) == COUNT and len(kept(runs)) == 1
    falsify(runs / "run-7")
    assert list_runs(runs) == first, "told from what was kept, every field of it"
    assert {run.answer for run in first} == {"12"} and summarise(runs / "run-7").answer == "99"


def test_a_run_that_went_on_is_read_anew_and_one_that_is_gone_is_gone(runs: Path) -> None:
    list_runs(runs)
    with Journal.reopen(runs / "run-3", SystemClock()) as journal:
        journal.append(RunEnded(status="stopped", answer="13"))
    (runs / "run-4" / "journal.jsonl").unlink()
    again = {run.name: run for run in list_runs(runs)}
    assert again["run-3"].status == "stopped" and again["run-3"].answer == "13" and "run-4" not in again
    assert len(again) == COUNT - 1


def test_what_was_written_just_now_is_not_kept(runs: Path) -> None:
    now = time.time_ns()
    os.utime(runs / "run-5" / "journal.jsonl", ns=(now, now))
    list_runs(runs)
    falsify(runs / "run-5")
    falsify(runs / "run-6")
    again = {run.name: run.answer for run in list_runs(runs)}
    assert again["run-5"] == "99" and again["run-6"] == "12"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1, 2]", b'{"form": 0, "runs": {}}', b'{"form": 1, "runs": {"run-1": [[1, 2, 3], {"question": 5}]}}'],
)
def test_a_cache_that_makes_no_sense_is_let_be(runs: Path, content: bytes) -> None:
    first = list_runs(runs)
    (cache,) = kept(runs)
    cache.write_bytes(content)
    assert list_runs(runs) == first
    cache.write_bytes(cache.read_bytes().replace(b'"answer":', b'"anzwer":'))
    assert list_runs(runs) == first, "other fields than a summary has"


def test_what_was_kept_long_ago_is_forgotten(runs: Path) -> None:
    old, young = (runs.parent / "cache" / "keyeloop" / "runs" / name for name in ("old.json", "young.json"))
    old.parent.mkdir(parents=True)
    for path, days in ((old, 40), (young, 2)):
        path.write_text("{}")
        os.utime(path, (time.time() - days * 24 * 3600,) * 2)
    list_runs(runs)
    assert not old.exists() and young.exists() and len(kept(runs)) == 2


def test_a_few_runs_and_a_cache_that_cannot_be_written_leave_nothing(runs: Path) -> None:
    for number in range(LEAST_RUNS - 1, COUNT):
        (runs / f"run-{number}" / "journal.jsonl").unlink()
    assert len(list_runs(runs)) == LEAST_RUNS - 1 and kept(runs) == []
    with Journal.create(runs / "one-more", SystemClock()) as journal:
        journal.append(RunStart(run_id="one-more", question="?", model="m"))
    age(runs / "one-more")
    (runs.parent / "cache").write_text("no folder")
    assert len(list_runs(runs)) == LEAST_RUNS
