"""Pages that were fetched before, from a cache on disk: what a replay reads again."""

from __future__ import annotations

import base64
from typing import Any

from keyeloop.tools.answer_cache import AnswerCache
from keyeloop.tools.pages.address import read_address
from keyeloop.tools.pages.fetching import Fetched, Fetcher

MAX_BYTES = 3_000_000
"""Larger pages are not kept."""


class KeptFetcher:
    """A fetcher that looks into a cache first; what is forbidden now is forbidden however it got in there."""

    def __init__(self, fetcher: Fetcher, cache: AnswerCache | None) -> None:
        self._fetcher, self._cache = fetcher, cache
        self._allowed = sorted(f"{one.host}:{one.port or ''}" for one in fetcher.permits.allowed)

    async def fetch(self, url: str, *, accept: str = "text/html,*/*;q=0.8", max_bytes: int | None = None) -> Fetched:
        """As :meth:`Fetcher.fetch`; ToolError also where the cache alone may answer and has nothing."""
        if self._cache is None:
            return await self._fetcher.fetch(url, accept=accept, max_bytes=max_bytes)
        address = read_address(url)
        self._fetcher.permits.check_address(address)
        key = {"page": address.text, "accept": accept, "allowed": self._allowed}
        kept = self._cache.get(key, f"the page {address.text}")
        if kept is not None:
            return Fetched(kept["url"], kept["content_type"], base64.b64decode(kept["body"]))
        page = await self._fetcher.fetch(url, accept=accept, max_bytes=max_bytes)
        if len(page.body) <= MAX_BYTES:
            value: dict[str, Any] = {"url": page.url, "content_type": page.content_type}
            self._cache.put(key, {**value, "body": base64.b64encode(page.body).decode("ascii")})
        return page
