"""Exa. Source: exa.ai/docs/reference/search (POST /search with ``contents.highlights``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keyeloop.tools.search.providers.asking import Question, ask_json
from keyeloop.tools.search.providers.base import key_of
from keyeloop.tools.search.result import SearchResult, make_result

MOST = 100


class Exa:
    """The search of type ``auto`` with highlights; the key is in ``EXA_API_KEY``."""

    name = "exa"

    def __init__(self, key: str | None = None, url: str = "https://api.exa.ai/search") -> None:
        """Raises ConfigError where there is no key."""
        self._key = key_of(self.name, key, "EXA_API_KEY")
        self.place = url

    async def search(self, query: str, limit: int) -> list[SearchResult]:
        """Results with the sentences that fit the question. Raises ProviderFailed."""
        data = {"query": query, "numResults": min(limit, MOST), "contents": {"highlights": True}}
        found = await ask_json(Question(self.place, {"x-api-key": self._key}, data=data))
        return [
            make_result(self.name, rank, one.get("title"), one.get("url"), _said(one), one.get("publishedDate"))
            for rank, one in enumerate([one for one in found.get("results") or [] if isinstance(one, dict)][:limit], 1)
        ]


def _said(one: Mapping[str, Any]) -> str:
    highlights = one.get("highlights")
    if isinstance(highlights, list) and highlights:
        return " ... ".join(map(str, highlights))
    return str(one.get("summary") or one.get("text") or "")
