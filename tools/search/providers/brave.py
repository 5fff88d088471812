"""Brave Search. Source: api-dashboard.search.brave.com/api-reference/web/search."""

from __future__ import annotations

from keyeloop.tools.search.providers.asking import Question, ask_json
from keyeloop.tools.search.providers.base import key_of
from keyeloop.tools.search.result import SearchResult, make_result

MOST, MOST_CHARS, MOST_WORDS = 20, 400, 50


class Brave:
    """The web search; the key is in ``BRAVE_API_KEY`` or ``BRAVE_SEARCH_API_KEY``."""

    name = "brave"

    def __init__(self, key: str | None = None, url: str = "https://api.search.brave.com/res/v1/web/search") -> None:
        """Raises ConfigError where there is no key."""
        self._key = key_of(self.name, key, "BRAVE_API_KEY", "BRAVE_SEARCH_API_KEY")
        self.place = url

    async def search(self, query: str, limit: int) -> list[SearchResult]:
        """Web results; a question is cut to the 400 characters and 50 words that are taken. Raises ProviderFailed."""
        params = {"q": " ".join(query.split()[:MOST_WORDS])[:MOST_CHARS], "count": str(min(limit, MOST))}
        found = await ask_json(Question(self.place, {"X-Subscription-Token": self._key}, params))
        web = found.get("web")
        listed = web.get("results") if isinstance(web, dict) else None
        return [
            make_result(
                self.name,
                rank,
                one.get("title"),
                one.get("url"),
                one.get("description"),
                one.get("page_age") or one.get("age"),
            )
            for rank, one in enumerate([one for one in listed or [] if isinstance(one, dict)][:limit], 1)
        ]
