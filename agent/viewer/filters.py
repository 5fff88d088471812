"""Which runs a list shows, as its address says it; and the totals of those."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from keyeloop.agent.viewer.searching import says
from keyeloop.agent.viewer.summary import Row
from keyeloop.runtime.content import Usage

PAGE_ROWS = 100
ORDERS = {
    "new": ("newest first", lambda row: -row.run.began_s),
    "long": ("longest first", lambda row: -row.run.totals.duration_s),
    "tokens": ("most tokens first", lambda row: -(row.run.usage.input_tokens + row.run.usage.output_tokens)),
    "steps": ("most steps first", lambda row: -row.run.totals.turns),
}
"""How rows can be ordered."""


@dataclass(frozen=True)
class Filter:
    """What is asked of a list; an empty field asks nothing."""

    words: str = ""
    """All of them, in question, answer, model or name of a source or run, whatever their case."""
    deep: bool = False
    """Look for ``words``, as one string, in everything that was said and returned too."""
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

    def apply(self, rows: Iterable[Row]) -> list[Row]:
        """The rows that are asked for, in the order that is asked for."""
        kept = [
            row
            for row in rows
            if self.status in ("", row.status)
            and self.model in ("", row.run.model)
            and (not self.source or self.source in row.sources)
            and (self._fits(row) or (self.deep and says(row.run.folder, self.words)))
        ]
        return sorted(kept, key=ORDERS[self.order][1])

    def _fits(self, row: Row) -> bool:
        text = " ".join((row.run.question, row.run.answer, row.run.model, row.id, *row.sources)).casefold()
        return all(word in text for word in self.words.casefold().split())


@dataclass(frozen=True)
class Totals:
    """Sums over rows."""

    runs: int
    answered: int
    duration_s: float
    usage: Usage
    """Its cost is of the runs whose cost is known; None where none is."""

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Totals:
        """Of all of ``rows``."""
        used = [row.run.usage for row in rows]
        costs = [usage.cost for usage in used if usage.cost is not None]
        return cls(
            runs=len(rows),
            answered=sum(row.status == "answered" for row in rows),
            duration_s=sum(row.run.totals.duration_s for row in rows),
            usage=Usage(
                input_tokens=sum(usage.input_tokens for usage in used),
                cached_tokens=sum(usage.cached_tokens for usage in used),
                output_tokens=sum(usage.output_tokens for usage in used),
                cost=sum(costs) if costs else None,
            ),
        )
