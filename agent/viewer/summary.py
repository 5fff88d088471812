"""A row of the list of runs: what a run's record tells of itself, and the name that the viewer knows it by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from keyeloop.runtime.citations import strip_citations
from keyeloop.runtime.trajectory import RunSummary

UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Row:
    """A run in the list. The numbers are of all its questions."""

    id: str
    """The run's folder below the folder of runs, with ``/`` between its parts."""
    run: RunSummary

    @property
    def status(self) -> str:
        """As in ``run_end``; ``in flight`` where there is none, ``unreadable`` where the record makes no sense."""
        return self.run.status or UNREADABLE

    @property
    def answer(self) -> str:
        """Without its citations."""
        return strip_citations(self.run.answer)

    @property
    def sources(self) -> tuple[str, ...]:
        """File names of its inputs."""
        return tuple(Path(path).name for path in self.run.sources)
