"""Older records brought up to the present form, line by line, while they are read; nothing on disk is changed by it.

=======  ===========================================================================================
Format   What it brought
=======  ===========================================================================================
1        The events of runs with several questions; no checksums.
2        A checksum on every line (``crc32``), ``run_end.so_far``, ``state_rebuilt``, ``run_start.fork``.
=======  ===========================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from keyeloop.runtime.errors import JournalError
from keyeloop.runtime.events import FORMAT, RunTotals, event_from_object
from keyeloop.runtime.journal.layout import JOURNAL
from keyeloop.runtime.journal.lines import parse_line
from keyeloop.runtime.journal.totals import Totals

Line = dict[str, Any]
Step = Callable[[Line], Line]
"""Takes the lines of one record in order, each in one format, and gives them in the next."""


class Migration:
    """Brings the lines of one record to the present form; which form they have, the first of them says."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._steps: tuple[Step, ...] = ()
        self.found: int | None = None
        """The format of the record, once its first line was seen."""

    @property
    def needless(self) -> bool:
        """Whether the record is known to have the present form."""
        return self.found == FORMAT

    def present(self, line: Line) -> Line:
        """The next line, in the present form. JournalError for a record of a newer version."""
        if line.get("kind") == "run_start":
            self._begin(line)
        for step in self._steps:
            line = step(line)
        return line

    def _begin(self, start: Line) -> None:
        found = start.get("format", 1)
        self.found = found if isinstance(found, int) else 1
        if self.found > FORMAT:
            raise JournalError(
                f"the run in {self._folder} has format {self.found}, and this version reads formats up to {FORMAT}: "
                "update keyeloop to read it"
            )
        self._steps = tuple(STEPS[number]() for number in range(self.found, FORMAT))


def format_of(folder: Path) -> int:
    """The format of the record in ``folder``; the present one where its first line cannot be read."""
    try:
        with (folder / JOURNAL).open("rb") as file:
            found = parse_line(file.readline()[:-1]).get("format", 1)
    except (OSError, ValueError):
        return FORMAT
    return found if isinstance(found, int) else FORMAT


def _from_1() -> Step:
    """``run_end`` learns what the whole run took so far."""
    totals = Totals()

    def step(line: Line) -> Line:
        if line.get("kind") == "run_start":
            line = {**line, "format": 2}
        so_far = totals.add(event_from_object(line))
        return {**line, "so_far": _plain(so_far)} if line.get("kind") == "run_end" else line

    return step


def _plain(totals: RunTotals) -> Line:
    return totals.model_dump()


STEPS: Mapping[int, Callable[[], Step]] = {1: _from_1}
"""From this format to the next."""
