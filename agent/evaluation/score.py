"""What was said in answer to a question, and what that is worth."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from keyeloop.runtime.citations import strip_citations


@dataclass(frozen=True)
class Said:
    """The answer of one run."""

    text: str
    """As the model wrote it, citations included."""
    cited_s: tuple[float, ...] = ()
    """Moments of the first video that it cites, in seconds, in order of the text."""

    @property
    def plain(self) -> str:
        """Without the citations."""
        return strip_citations(self.text)


@dataclass(frozen=True)
class Score:
    """What an answer is worth."""

    right: bool
    read: str = ""
    """What was understood of the answer: a letter, a number, an interval; empty where it held none."""
    tiou: float | None = None
    """Temporal intersection over union, for intervals only."""


def folded(text: str) -> str:
    """Text for comparison: compatibility forms and case folded, white space single, no quotes or full stop around."""
    plain = unicodedata.normalize("NFKC", text).casefold().replace("’", "'").replace("−", "-")
    return re.sub(r"\s+", " ", plain).strip(" \"'`“”‘*_").rstrip(".!").strip(" \"'`“”‘*_")
