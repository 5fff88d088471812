"""The runs below one folder, by name: the only folders that the viewer ever opens."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

from keyeloop.agent.viewer.summary import Row
from keyeloop.runtime.errors import InputError
from keyeloop.runtime.journal import MEDIA, is_run
from keyeloop.runtime.trajectory.remembering import RememberedRuns, Stamp, stamp_of

DEPTH = 4
"""Runs are looked for so many folders down."""


class Library:
    """The runs in ``root``, which may be a folder of runs or one run. Links are not followed."""

    def __init__(self, root: Path) -> None:
        """Raises InputError where there is no such folder."""
        if not root.is_dir():
            raise InputError(f"no folder {root}: name a folder of runs, or one run")
        self.root = root.resolve()
        self.single = is_run(self.root)
        """``root`` is one run."""
        self._stamps: dict[str, Stamp] = {}
        self._remembered, self._listing = RememberedRuns(self.root), threading.Lock()

    def folder(self, name: str) -> Path | None:
        """The folder of the run called ``name``; None for anything that a look through ``root`` does not find."""
        if name not in self._stamps:
            self.scan()
        if name not in self._stamps:
            return None
        found = self.root if self.single else self.root / name
        return found if is_run(found) else None

    def scan(self) -> dict[str, Stamp]:
        """Every run's name, and what changes when its record does."""
        if self.single:
            self._stamps = {self.root.name: stamp_of(str(self.root))} if is_run(self.root) else {}
        else:
            self._stamps = dict(_runs(str(self.root), DEPTH))
        return self._stamps

    def rows(self) -> list[Row]:
        """A row for every run, the newest first; a journal that has not grown is not read again."""
        root = self.root.parent if self.single else self.root
        told = self._remembered.summary
        with self._listing:
            rows = [Row(name, told(name, root, stamp)) for name, stamp in self.scan().items()]
            self._remembered.keep()
        return sorted(rows, key=lambda row: (row.run.began_s, row.id), reverse=True)


def _runs(folder: str, depth: int, below: str = "") -> Iterator[tuple[str, Stamp]]:
    """Runs below ``folder``: names and stamps."""
    try:
        with os.scandir(folder) as found:
            entries = [entry for entry in found if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for entry in entries:
        name = below + entry.name
        try:
            yield name, stamp_of(entry.path)
        except OSError:
            if depth > 1 and entry.name != MEDIA and not entry.name.startswith("."):
                yield from _runs(entry.path, depth - 1, name + "/")
