"""What the model reads of a search. keye-tiny is trained on these exact words."""

from __future__ import annotations

from collections.abc import Iterable

from keyeloop.tools.search.index import Hit


def hits_text(query: str, hits: Iterable[Hit]) -> str:
    """What the model reads: one numbered entry a document, with title, path and the stretch that matches."""
    entries = [f"{number}. {hit.title} ({hit.path})\n{hit.snippet}" for number, hit in enumerate(hits, 1)]
    return "\n".join(entries) if entries else f"no document matches {query!r}; try other words"
