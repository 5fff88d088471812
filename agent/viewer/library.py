"""The runs below one folder, by name: the only folders that the viewer ever opens."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from keyeloop.agent.viewer.summary import Row
from keyeloop.runtime.errors import InputError
from keyeloop.runtime.journal import JOURNAL, MEDIA, is_run
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
        self._folders: dict[str, Path] = {}
        self._rows: dict[str, tuple[Stamp, Row]] = {}
        self._remembered = RememberedRuns(self.root)

    def folder(self, name: str) -> Path | None:
        """The folder of the run called ``name``; None for anything that a look through ``root`` does not find."""
        if name not in self._folders:
            self.scan()
        found = self._folders.get(name)
        return found if found is not None and is_run(found) else None

    @property
    def folders(self) -> dict[str, Path]:
        """What the last look through ``root`` found."""
        return self._folders

    def scan(self) -> dict[str, Path]:
        """Every run's folder by its name."""
        if self.single:
            self._folders = {self.root.name: self.root}
        else:
            known = self._folders
            self._folders = {name: known.get(name) or self.root / name for name in _runs(str(self.root), DEPTH)}
        return self._folders

    def rows(self) -> list[Row]:
        """A row for every run, the newest first; a journal that has not grown is not read again."""
        rows = []
        for name, folder in self.scan().items():
            try:
                stamp = stamp_of(folder)
            except OSError:
                continue
            known = self._rows.get(name)
            if known is None or known[0] != stamp:
                known = (stamp, Row(name, self._remembered.summary(name, folder, stamp)))
                self._rows[name] = known
            rows.append(known[1])
        self._remembered.keep()
        return sorted(rows, key=lambda row: (row.run.began_s, row.id), reverse=True)


def _runs(folder: str, depth: int, below: str = "") -> Iterator[str]:
    """Names of the runs below ``folder``."""
    try:
        with os.scandir(folder) as found:
            entries = [entry for entry in found if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for entry in entries:
        name = below + entry.name
        if os.path.isfile(f"{entry.path}/{JOURNAL}"):  # noqa: PTH113  thousands of times
            yield name
        elif depth > 1 and entry.name != MEDIA and not entry.name.startswith("."):
            yield from _runs(entry.path, depth - 1, name + "/")
