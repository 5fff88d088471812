"""A run as a line of a list: told from the two ends of its record, so that thousands take a second."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from keyeloop.runtime.content import Usage
from keyeloop.runtime.errors import JournalError
from keyeloop.runtime.events import RunTotals
from keyeloop.runtime.journal import JOURNAL
from keyeloop.runtime.journal.layout import chunk_path, chunk_paths
from keyeloop.runtime.journal.reading import read_strictly, without_start
from keyeloop.runtime.journal.totals import Totals
from keyeloop.runtime.trajectory.steps import Status

HEAD_BYTES = TAIL_BYTES = 16 << 10
"""Read of each end at first; most first and last lines are shorter."""
_SECOND = chunk_path(Path(), 1).name


@dataclass(frozen=True)
class RunSummary:
    """What a list says of one run. A damaged one is listed too, with its ``problem``."""

    folder: Path
    run_id: str
    question: str
    """The first one."""
    model: str
    status: Status | None
    """Of the last question; None where the record cannot be read."""
    answer: str = ""
    reason: str = ""
    began_s: float = 0.0
    """Seconds since the epoch."""
    last_s: float = 0.0
    """When the last event was written."""
    totals: RunTotals = field(default_factory=RunTotals)
    """Of all questions."""
    sources: tuple[str, ...] = ()
    """Paths of its inputs."""
    events: int = 0
    forked_from: str = ""
    problem: str = ""
    """Why the record cannot be read; empty for a sound one."""

    @property
    def usage(self) -> Usage:
        return self.totals.usage

    @property
    def name(self) -> str:
        """Of its folder: what commands take for it."""
        return self.folder.name


def summarise(folder: Path) -> RunSummary:
    """One run from the ends of its record; from all of it where it has no end, or is of an old format.

    Never raises for what the record holds: ``problem`` tells.
    """
    try:
        begin, last = _ends(folder)
        if last.get("kind") == "run_end" and "so_far" in last:
            totals, status = _totals(last["so_far"]), last["status"]
        else:
            totals, last, status = _counted(folder)
        return RunSummary(
            folder=folder,
            run_id=begin["run_id"],
            question=begin["question"],
            model=begin["model"],
            status=status,
            answer=last.get("answer", ""),
            reason=last.get("reason", ""),
            began_s=begin["time_s"],
            last_s=last["time_s"],
            totals=totals,
            sources=tuple(source["path"] for source in begin.get("inputs", ())),
            events=last["seq"] + 1,
            forked_from=(begin.get("fork") or {}).get("run_id", ""),
        )
    except (JournalError, ValidationError, ValueError, KeyError, TypeError, OSError) as error:
        return RunSummary(folder, folder.name, "", "", None, began_s=_changed(folder), problem=_words(error))


def _totals(written: dict[str, Any]) -> RunTotals:
    """As they stand in a sealed line: a record's own words are not checked again for a list."""
    return RunTotals.model_construct(**{**written, "usage": Usage(**written["usage"])})


def _ends(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The first and the last whole line of a record."""
    first = f"{folder}/{JOURNAL}"
    handle = os.open(first, os.O_RDONLY)
    try:
        head = os.read(handle, HEAD_BYTES)
        while b"\n" not in head:
            more = os.read(handle, 1 << 20)
            if not more:
                raise JournalError(without_start(folder, ()))
            head += more
        size = os.fstat(handle).st_size
        whole = head if size == len(head) else b""
    finally:
        os.close(handle)
    begin = from_json(head[: head.index(b"\n")])
    if begin.get("kind") != "run_start":
        raise JournalError("the record does not begin with run_start")
    if whole and not os.path.exists(f"{folder}/{_SECOND}"):  # noqa: PTH110  thousands of times
        line = _last_line(whole)
        return begin, begin if line is None else from_json(line)
    for path in reversed(chunk_paths(folder)):
        line = _last_of(path)
        if line is not None:
            return begin, from_json(line)
    return begin, begin


def _last_of(path: Path) -> bytes | None:
    """The last line of a file that ends with a line end; None where there is none."""
    with path.open("rb", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        take = TAIL_BYTES
        while True:
            start = max(0, size - take)
            file.seek(start)
            data = file.read(size - start)
            line = _last_line(data)
            if line is not None and (start == 0 or data.count(b"\n") > 1):
                return line
            if start == 0:
                return line
            take *= 16


def _last_line(data: bytes) -> bytes | None:
    stop = data.rfind(b"\n")
    return None if stop < 0 else data[data.rfind(b"\n", 0, stop) + 1 : stop]


def _counted(folder: Path) -> tuple[RunTotals, dict[str, Any], Status]:
    """Totals of a whole record, its last event, and its status."""
    totals, ended, last = Totals(), None, None
    for written in read_strictly(folder):
        last = written.event
        totals.add(last)
        if last.kind == "run_end":
            ended = last
        elif last.kind in ("state_rebuilt", "question"):
            ended = None
    if last is None:
        raise JournalError(without_start(folder, ()))
    told = {"time_s": last.time_s, "seq": last.seq}
    if ended is None:
        return totals.now, told, "in flight"
    return totals.now, {**told, "answer": ended.answer, "reason": ended.reason}, ended.status


def _changed(folder: Path) -> float:
    try:
        return (folder / JOURNAL).stat().st_mtime
    except OSError:
        return 0.0


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, JournalError) else f"the record cannot be read ({error})"
