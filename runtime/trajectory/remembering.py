"""Summaries of many runs, kept from one listing to the next: a record that has not changed since is not read again.

They lie in the user's cache, a file for each folder of runs, and never among the runs. Losing them costs time only.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from stat import S_ISREG
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from keyeloop.runtime.events import RunTotals
from keyeloop.runtime.journal import JOURNAL, is_run
from keyeloop.runtime.journal.layout import chunk_path, chunk_paths
from keyeloop.runtime.source import cache_folder
from keyeloop.runtime.trajectory.listing import RunSummary, summarise

FORM = 1
"""Of what is kept; raised when a summary tells something else."""
LEAST_RUNS = 200
"""Fewer are read faster than anything is kept."""
FORGOTTEN_S = 30 * 24 * 3600
"""What was kept longer ago is removed when something is kept."""
_SETTLED_NS = 2_000_000_000
"""A record that was written later than this before it was read is not kept: more may come under the same time stamp."""
_SECOND = chunk_path(Path(), 1).name

Stamp = tuple[int, int, int]


def stamp_of(folder: str) -> Stamp:
    """Changes whenever a run's record does: time, bytes and inode of its last file. OSError where there is none."""
    last = os.stat(f"{folder}/{JOURNAL}")  # noqa: PTH116  thousands of times
    if not S_ISREG(last.st_mode):
        raise FileNotFoundError(f"{folder}/{JOURNAL} is no file")
    if os.path.exists(f"{folder}/{_SECOND}"):  # noqa: PTH110
        last = chunk_paths(Path(folder))[-1].stat()
    return last.st_mtime_ns, last.st_size, last.st_ino


def list_runs(runs: Path) -> list[RunSummary]:
    """Every run below ``runs``, or ``runs`` itself where it is one, latest first; empty for a folder without runs."""
    if is_run(runs):
        return [summarise(runs)]
    try:
        with os.scandir(runs) as found:
            names = [entry.name for entry in found if not entry.name.startswith(".")]
    except OSError:
        return []
    remembered = RememberedRuns(runs)
    summaries = []
    for name in names:
        try:
            summaries.append(remembered.summary(name, runs, stamp_of(f"{runs}/{name}")))
        except OSError:
            continue  # no run
    remembered.keep()
    return sorted(summaries, key=lambda one: (one.began_s, one.name), reverse=True)


class RememberedRuns:
    """Tells runs of one folder; after a listing, :meth:`keep` keeps what was read for the next process."""

    def __init__(self, runs: Path, cache: Path | None = None) -> None:
        """``cache`` defaults to :func:`keyeloop.runtime.source.cache_folder`."""
        name = hashlib.sha256(os.fsencode(runs.absolute())).hexdigest()
        self._file = (cache or cache_folder()) / "runs" / f"{name}.json"
        self._kept: dict[str, Any] | None = None
        self._told: dict[str, tuple[Stamp, RunSummary]] = {}
        self._asked: set[str] = set()
        self._read = 0

    def summary(self, name: str, runs: Path, stamp: Stamp) -> RunSummary:
        """The run ``runs / name``, whose record has this stamp now; as :func:`summarise`, it never raises."""
        known = self._told.get(name)
        if known is None or known[0] != stamp:
            folder = runs / name
            known = stamp, self._recalled(name, folder, stamp) or self._summarised(folder)
            self._told[name] = known
        self._asked.add(name)
        return known[1]

    def keep(self) -> None:
        """Write down what is known, if there is enough to gain; a cache that cannot be written is let be."""
        self._kept = None  # what was asked for is in memory now
        if len(self._asked) < len(self._told):
            self._told = {name: told for name, told in self._told.items() if name in self._asked}
        self._asked = set()
        if self._read * 50 < len(self._told):
            return
        settled_ns = time.time_ns() - _SETTLED_NS
        kept = {
            name: (stamp, _plain(summary))
            for name, (stamp, summary) in self._told.items()
            if stamp[0] < settled_ns and not summary.problem
        }
        if len(kept) < LEAST_RUNS:
            return
        self._read = 0
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            handle, draft = tempfile.mkstemp(dir=self._file.parent, prefix=".draft-")
            with os.fdopen(handle, "wb") as file:
                file.write(to_json({"form": FORM, "runs": kept}))
            Path(draft).replace(self._file)
            for other in self._file.parent.iterdir():  # of folders that are gone, too
                if time.time() - other.stat().st_mtime > FORGOTTEN_S:
                    other.unlink(missing_ok=True)
        except OSError:
            return

    def _recalled(self, name: str, folder: Path, stamp: Stamp) -> RunSummary | None:
        if self._kept is None:
            self._kept = self._load()
        try:
            at, told = self._kept[name]
            return _summary(folder, told) if tuple(at) == stamp else None
        except (KeyError, TypeError, ValueError, ValidationError):
            return None

    def _load(self) -> dict[str, Any]:
        try:
            found = from_json(self._file.read_bytes())
            return dict(found["runs"]) if found["form"] == FORM else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _summarised(self, folder: Path) -> RunSummary:
        self._read += 1
        return summarise(folder)


def _plain(summary: RunSummary) -> dict[str, Any]:
    return {name: value for name, value in vars(summary).items() if name != "folder"}


def _summary(folder: Path, told: Mapping[str, Any]) -> RunSummary:
    totals, sources = RunTotals.model_validate(told["totals"]), tuple(told["sources"])
    return RunSummary(**{**told, "folder": folder, "totals": totals, "sources": sources})
