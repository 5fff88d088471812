"""ddgs: several search engines by their public pages, without a key. Needs the extra ``search``."""

from __future__ import annotations

import asyncio
import importlib.util
from typing import Any

from keyeloop.runtime.errors import ConfigError
from keyeloop.tools.search.providers.base import ProviderFailed
from keyeloop.tools.search.result import SearchResult, make_result

TIMEOUT_S = 10


class Ddgs:
    """The text search of the package ``ddgs``. Fair for a few questions; engines refuse those who ask much."""

    name = "ddgs"

    def __init__(self, backend: str = "auto") -> None:
        """``backend`` names engines of the package, with commas. Raises ConfigError where it is not installed."""
        if importlib.util.find_spec("ddgs") is None:
            raise ConfigError('the search provider ddgs needs one more package: pip install "keyeloop[search]"')
        self.place = backend

    async def search(self, query: str, limit: int) -> list[SearchResult]:
        """Results of whichever engines answer. Raises ProviderFailed."""
        listed = await asyncio.to_thread(self._text, query, limit)
        return [
            make_result(self.name, rank, one.get("title"), one.get("href"), one.get("body"), one.get("date"))
            for rank, one in enumerate(listed[:limit], 1)
        ]

    def _text(self, query: str, limit: int) -> list[dict[str, Any]]:
        from ddgs import DDGS
        from ddgs.exceptions import DDGSException, RatelimitException

        try:
            return list(DDGS(timeout=TIMEOUT_S).text(query, max_results=limit, backend=self.place))
        except RatelimitException:
            raise ProviderFailed("has had too many requests") from None
        except DDGSException as error:
            if "No results" in str(error):
                return []
            raise ProviderFailed(f"got no answer from its engines ({' '.join(str(error).split())[:160]})") from None
