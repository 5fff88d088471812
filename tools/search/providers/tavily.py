"""Tavily. Source: docs.tavily.com/documentation/api-reference/endpoint/search."""

from __future__ import annotations

from keyeloop.tools.search.providers.asking import Question, ask_json
from keyeloop.tools.search.providers.base import key_of
from keyeloop.tools.search.result import SearchResult, make_result

MOST = 20


class Tavily:
    """The basic search (one credit); the key is in ``TAVILY_API_KEY``."""

    name = "tavily"

    def __init__(self, key: str | None = None, url: str = "https://api.tavily.com/search") -> None:
        """Raises ConfigError where there is no key."""
        self._key = key_of(self.name, key, "TAVILY_API_KEY")
        self.place = url

    async def search(self, query: str, limit: int) -> list[SearchResult]:
        """Results with the page's content as far as it is about the question. Raises ProviderFailed."""
        data = {"query": query, "max_results": min(limit, MOST)}
        found = await ask_json(Question(self.place, {"Authorization": f"Bearer {self._key}"}, data=data))
        return [
            make_result(
                self.name, rank, one.get("title"), one.get("url"), one.get("content"), one.get("published_date")
            )
            for rank, one in enumerate([one for one in found.get("results") or [] if isinstance(one, dict)][:limit], 1)
        ]
