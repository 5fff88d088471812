"""SearXNG: a search engine of one's own. Source: docs.searxng.org/dev/search_api (its instance must allow ``json``)."""

from __future__ import annotations

from typing import Any

from keyeloop.runtime.errors import ConfigError
from keyeloop.tools.search.providers.asking import Question, ask_json
from keyeloop.tools.search.providers.base import ProviderFailed
from keyeloop.tools.search.result import SearchResult, make_result

_REASONS = {403: "refuses JSON: list json under search.formats in its settings.yml"}


class SearXNG:
    """One instance, by its address (the setting ``searxng_url``)."""

    name = "searxng"

    def __init__(self, url: str | None) -> None:
        """Raises ConfigError where ``url`` is no http address."""
        if not url or not url.startswith(("http://", "https://")):
            raise ConfigError(
                f"the search provider searxng needs its address, not {url!r}: set searxng_url (KEYELOOP_SEARXNG_URL)"
            )
        self.place = url.rstrip("/").removesuffix("/search")

    async def search(self, query: str, limit: int) -> list[SearchResult]:
        """The first page's results. Raises ProviderFailed, also where none of its engines answered."""
        params = {"q": query, "format": "json"}
        found = await ask_json(Question(f"{self.place}/search", params=params), reasons=_REASONS)
        listed = [one for one in found.get("results") or [] if isinstance(one, dict)]
        if not listed and found.get("unresponsive_engines"):
            raise ProviderFailed(f"got no answer from its engines: {_engines(found['unresponsive_engines'])}")
        return [
            make_result(self.name, rank, one.get("title"), one.get("url"), one.get("content"), one.get("publishedDate"))
            for rank, one in enumerate(listed[:limit], 1)
        ]


def _engines(listed: Any) -> str:
    if not isinstance(listed, list):
        return "no reason told"
    pairs = [one for one in listed if isinstance(one, list) and len(one) > 1]
    return ", ".join(f"{one[0]} ({one[1]})" for one in pairs)[:160] or "no reason told"
