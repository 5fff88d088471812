"""Which runs a list shows, as its address says it; and the totals of those."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from keyeloop.agent.viewer.summary import Summary
from keyeloop.runtime.journal import JOURNAL

PAGE_ROWS = 100
ORDERS = {
    "new": ("newest first", lambda row: -row.started_s),
    "long": ("longest first", lambda row: -row.duration_s),
    "tokens": ("most tokens first", lambda row: -(row.input_tokens + row.output_tokens)),
    "steps": ("most steps first", lambda row: -row.steps),
}
"""How rows can be ordered."""


@dataclass(frozen=True)
class Filter:
    """What is asked of a list; an empty field asks nothing."""

    words: str = ""
    """All of them, in question, answer, model or name of a source or run, whatever their case."""
    deep: bool = False
    """Look for ``words``, as one string, in everything that was said and returned."""
    status: str = ""
    model: str = ""
    source: str = ""
    order: str = "new"
    page: int = 1

    @classmethod
    def read(cls, query: Mapping[str, str]) -> Filter:
        """From an address's query; what makes no sense there asks nothing."""
        page = query.get("page", "")
        return cls(
            words=query.get("q", "").strip()[:200],
            deep=query.get("deep") == "1",
            status=query.get("status", ""),
            model=query.get("model", ""),
            source=query.get("source", ""),
            order=query.get("order", "") if query.get("order") in ORDERS else "new",
            page=max(1, int(page)) if page.isdecimal() and len(page) < 7 else 1,
        )

    def query(self, page: int) -> str:
        """The query of another page of the same list."""
        given = {
            "q": self.words,
            "deep": "1" if self.deep else "",
            "status": self.status,
            "model": self.model,
            "source": self.source,
            "order": "" if self.order == "new" else self.order,
            "page": "" if page == 1 else page,
        }
        return urlencode({name: value for name, value in given.items() if value})

    def apply(self, rows: Iterable[Summary], folders: Mapping[str, Path]) -> list[Summary]:
        """The rows that are asked for, in the order that is asked for."""
        kept = [
            row
            for row in rows
            if self.status in ("", row.status)
            and self.model in ("", row.model)
            and (not self.source or self.source in row.sources)
            and (self.deep or self._fits(row))
        ]
        if self.deep and self.words:
            kept = [row for row in kept if row.id in folders and says(folders[row.id], self.words)]
        return sorted(kept, key=ORDERS[self.order][1])

    def _fits(self, row: Summary) -> bool:
        text = " ".join((row.question, row.answer, row.model, row.id, *row.sources)).casefold()
        return all(word in text for word in self.words.casefold().split())


@dataclass(frozen=True)
class Totals:
    """Sums over rows."""

    runs: int
    answered: int
    duration_s: float
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost: float | None
    """Of the runs whose cost is known; None where none is."""

    @classmethod
    def of(cls, rows: Sequence[Summary]) -> Totals:
        costs = [row.cost for row in rows if row.cost is not None]
        return cls(
            runs=len(rows),
            answered=sum(row.status == "answered" for row in rows),
            duration_s=sum(row.duration_s for row in rows),
            input_tokens=sum(row.input_tokens for row in rows),
            cached_tokens=sum(row.cached_tokens for row in rows),
            output_tokens=sum(row.output_tokens for row in rows),
            cost=sum(costs) if costs else None,
        )


def says(folder: Path, words: str) -> bool:
    """Whether a run's journal holds ``words`` anywhere, whatever their case."""
    needle = re.compile(re.escape(json.dumps(words, ensure_ascii=False)[1:-1]), re.IGNORECASE)
    try:
        with (folder / JOURNAL).open(encoding="utf-8", errors="replace") as file:
            return any(needle.search(line) for line in file)
    except OSError:
        return False
