"""The embedded index over a folder of documents, as a provider among the others."""

from __future__ import annotations

import asyncio
from pathlib import Path

from keyeloop.runtime.errors import ConfigError, InputError
from keyeloop.tools.search.index import DocumentIndex
from keyeloop.tools.search.providers.base import ProviderFailed
from keyeloop.tools.search.result import SearchResult


class Documents:
    """A folder of documents; nothing leaves the machine."""

    name = "documents"

    def __init__(self, folder: Path | None) -> None:
        """Raises ConfigError where no folder is given."""
        if folder is None:
            raise ConfigError("the search provider documents needs a folder: give one with --documents or the setting")
        self._folder = folder
        self.place = str(folder)

    async def search(self, query: str, limit: int) -> list[SearchResult]:
        """The best documents; their addresses are paths below the folder. Raises ProviderFailed."""
        try:
            hits = await asyncio.to_thread(lambda: DocumentIndex(self._folder).search(query, limit))
        except InputError as error:
            raise ProviderFailed(f"cannot be searched ({error})") from None
        return [
            SearchResult(hit.title, hit.path, hit.snippet, None, self.name, rank) for rank, hit in enumerate(hits, 1)
        ]
