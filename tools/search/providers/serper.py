"""Serper: Google's results. Source: serper.dev and its published OpenAPI description (POST /search, ``organic``)."""

from __future__ import annotations

from keyeloop.tools.search.providers.asking import Question, ask_json
from keyeloop.tools.search.providers.base import key_of
from keyeloop.tools.search.result import SearchResult, make_result

MOST = 100


class Serper:
    """The web search; the key is in ``SERPER_API_KEY``."""

    name = "serper"

    def __init__(self, key: str | None = None, url: str = "https://google.serper.dev/search") -> None:
        """Raises ConfigError where there is no key."""
        self._key = key_of(self.name, key, "SERPER_API_KEY")
        self.place = url

    async def search(self, query: str, limit: int) -> list[SearchResult]:
        """Organic results. Raises ProviderFailed."""
        data = {"q": query, "num": min(limit, MOST)}
        found = await ask_json(Question(self.place, {"X-API-KEY": self._key}, data=data))
        return [
            make_result(self.name, rank, one.get("title"), one.get("link"), one.get("snippet"), one.get("date"))
            for rank, one in enumerate([one for one in found.get("organic") or [] if isinstance(one, dict)][:limit], 1)
        ]
