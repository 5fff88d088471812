"""Runs that are being looked at, kept in memory while they do not grow; a growing one is read from where it ended."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from keyeloop.agent.viewer.looks import Look, Strip, looks_of, strips_of
from keyeloop.runtime.content import MediaRef, images_of
from keyeloop.runtime.events import QuestionAsked, RunStart, ToolReturned
from keyeloop.runtime.journal import JOURNAL
from keyeloop.runtime.trajectory import Step, Trajectory
from keyeloop.runtime.wire import parts_from_wire

MOST_RUNS = 4


@dataclass(frozen=True)
class OpenedRun:
    """One run as it was when it was read."""

    name: str
    run: Trajectory
    running: bool
    """A process is writing it."""

    @cached_property
    def looks(self) -> tuple[Look, ...]:
        """Every view, in order."""
        return looks_of(self.run)

    @cached_property
    def strips(self) -> tuple[Strip, ...]:
        """One for each source."""
        return strips_of(self.run, self.looks)

    @cached_property
    def media(self) -> dict[str, MediaRef]:
        """Every picture of the run by its sha256: no other is given out."""
        asked = [event for event in self.run.events if isinstance(event, RunStart | QuestionAsked)]
        told = [message.parts for event in asked for message in event.messages]
        results = [event.parts for event in self.run.events if isinstance(event, ToolReturned)]
        return {
            image.media.sha256: image.media
            for parts in (*told, *results)
            for part in parts_from_wire(parts)
            for image in images_of(part)
        }

    @property
    def steps(self) -> tuple[Step, ...]:
        return self.run.steps

    @property
    def last_seq(self) -> int:
        return self.run.events[-1].seq


class OpenedRuns:
    """The runs that were asked for last."""

    def __init__(self) -> None:
        self._runs: OrderedDict[Path, tuple[tuple[int, int], OpenedRun]] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, name: str, folder: Path) -> OpenedRun:
        """The run in ``folder``, as it is now. Raises JournalError where it cannot be read."""
        with self._lock:
            status = (folder / JOURNAL).stat()
            stamp = (status.st_mtime_ns, status.st_size)
            known = self._runs.get(folder)
            running = is_written(folder)
            if known is None or known[0] != stamp:
                known = (stamp, OpenedRun(name, Trajectory.read(folder), running))
            elif known[1].running != running:
                known = (stamp, OpenedRun(name, known[1].run, running))
            self._runs[folder] = known
            self._runs.move_to_end(folder)
            while len(self._runs) > MOST_RUNS:
                self._runs.popitem(last=False)
            return known[1]


def is_written(folder: Path) -> bool:
    """Whether a process holds the lock of a journal; where the system does not tell, no."""
    try:
        status = (folder / JOURNAL).stat()
        locks = Path("/proc/locks").read_text(encoding="ascii")
    except OSError:
        return False
    return any(
        line.split()[5].rpartition(":")[2] == str(status.st_ino) for line in locks.splitlines() if "FLOCK" in line
    )
