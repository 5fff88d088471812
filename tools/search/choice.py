"""Providers by name: what settings and the command line call them."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from keyeloop.runtime.errors import ConfigError
from keyeloop.tools.answer_cache import AnswerCache
from keyeloop.tools.search.providers.base import SearchProvider
from keyeloop.tools.search.web import WebSearch

UNUSED = "none"
"""Stands for a key where kept answers alone are used."""
NAMES = ("searxng", "brave", "tavily", "serper", "exa", "ddgs", "documents")


def web_search_by(
    names: str,
    *,
    documents: Path | None = None,
    searxng_url: str | None = None,
    cache: AnswerCache | None = None,
) -> WebSearch:
    """A search by ``names``: ``brave,searxng`` asks the second where the first fails, ``brave+exa`` asks both at once.

    Raises ConfigError for an unknown name, with the nearest, for a missing key, address, folder or package, and for
    commas beside plus signs.
    """
    together = "+" in names
    if together and "," in names:
        raise ConfigError(f"search={names!r} holds , and +: commas are for the next on failure, + for all at once")
    wanted = [name.strip().lower() for name in names.split("+" if together else ",") if name.strip()]
    if not wanted:
        raise ConfigError(f"search={names!r} names no provider: {', '.join(NAMES)}")
    if len(set(wanted)) < len(wanted):
        raise ConfigError(f"search={names!r} names a provider twice")
    makers = _makers(documents, searxng_url, UNUSED if cache is not None and cache.mode == "only" else None)
    unknown = next((name for name in wanted if name not in makers), None)
    if unknown is not None:
        near = difflib.get_close_matches(unknown, NAMES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(NAMES)}"
        raise ConfigError(f"there is no search provider {unknown!r}: {hint}")
    providers = [makers[name]() for name in wanted]
    return WebSearch(providers, way="all" if together else "first", cache=cache)


def _makers(
    documents: Path | None, searxng_url: str | None, key: str | None
) -> dict[str, Callable[[], SearchProvider]]:
    from keyeloop.tools.search.providers.brave import Brave
    from keyeloop.tools.search.providers.ddgs import Ddgs
    from keyeloop.tools.search.providers.documents import Documents
    from keyeloop.tools.search.providers.exa import Exa
    from keyeloop.tools.search.providers.searxng import SearXNG
    from keyeloop.tools.search.providers.serper import Serper
    from keyeloop.tools.search.providers.tavily import Tavily

    return {
        "searxng": lambda: SearXNG(searxng_url),
        "brave": lambda: Brave(key),
        "tavily": lambda: Tavily(key),
        "serper": lambda: Serper(key),
        "exa": lambda: Exa(key),
        "ddgs": Ddgs,
        "documents": lambda: Documents(documents),
    }
