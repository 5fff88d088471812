"""What a run gives back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from keyeloop.runtime.citations import strip_citations
from keyeloop.runtime.content import Usage
from keyeloop.runtime.events import RunEnded, RunStatus
from keyeloop.runtime.evidence import Citation


@dataclass(frozen=True)
class Answer:
    """The outcome of one run; ``str()`` is the answer without its citations."""

    text: str
    """As the model wrote it, citations included."""
    status: RunStatus
    """``answered``; ``budget`` or ``stopped`` mark an answer that was asked for before the model was done."""
    citations: tuple[Citation, ...]
    """Each with its source, second and box in source pixels; ``seen`` is False where the run never looked."""
    usage: Usage
    """Sum over all requests."""
    run: Path
    """Folder of the journal and its media."""
    reason: str = ""
    """Why, where the status is not ``answered``."""

    @classmethod
    def from_end(cls, end: RunEnded, run: Path) -> Answer:
        """The answer that a run's last event tells of."""
        return cls(end.answer, end.status, end.citations, end.usage, run, end.reason)

    def __str__(self) -> str:
        return strip_citations(self.text)

    def to_json(self) -> dict[str, Any]:
        """For a program: answer, status, citations (times in seconds, boxes in source pixels), run, usage."""
        made: dict[str, Any] = to_jsonable_python(
            {
                "answer": str(self),
                "text": self.text,
                "status": self.status,
                "reason": self.reason,
                "citations": self.citations,
                "run": str(self.run),
                "usage": self.usage,
            }
        )
        return made
