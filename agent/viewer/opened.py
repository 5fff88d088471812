"""Runs that are being looked at, kept in memory while they do not grow; a growing one is read from where it ended."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from keyeloop.agent.viewer.looks import Look, Strip, looks_of, strips_of
from keyeloop.runtime.content import MediaRef, images_of
from keyeloop.runtime.events import Event, QuestionAsked, RunStart, ToolReturned
from keyeloop.runtime.journal import JOURNAL, Following
from keyeloop.runtime.trajectory import Step, Trajectory
from keyeloop.runtime.trajectory.remembering import Stamp, stamp_of
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


class _Held:
    """A run in memory. While a process writes it, only what is new is read; one at rest is read whole, and checked."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name, self._folder = name, folder
        self._follow: Following | None = None
        self._events: list[Event] = []
        self._stamp: Stamp | None = None
        self._opened: OpenedRun | None = None

    def now(self) -> OpenedRun:
        """The run as it is on disk."""
        stamp, running = stamp_of(str(self._folder)), is_written(self._folder)
        if self._opened is None or stamp != self._stamp or running != self._opened.running:
            self._opened = OpenedRun(self._name, self._followed() if running else self._whole(), running)
            self._stamp = stamp
        return self._opened

    def _followed(self) -> Trajectory:
        if self._follow is None:
            self._follow, self._events = Following(self._folder), []
        self._events += self._follow.new()
        return Trajectory(self._folder, self._events)

    def _whole(self) -> Trajectory:
        self._follow = None
        return Trajectory.salvage(self._folder)


class OpenedRuns:
    """The runs that were asked for last."""

    def __init__(self) -> None:
        self._runs: OrderedDict[Path, _Held] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, name: str, folder: Path) -> OpenedRun:
        """The run in ``folder``, as it is now. Raises JournalError where it cannot be read."""
        with self._lock:
            held = self._runs.pop(folder, None) or _Held(name, folder)
            opened = held.now()
            self._runs[folder] = held
            while len(self._runs) > MOST_RUNS:
                self._runs.popitem(last=False)
            return opened


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
