"""The tools that look outside, as settings name them: ``web_search`` by providers, ``open_page``."""

from __future__ import annotations

from pathlib import Path

from keyeloop.runtime.config import Config
from keyeloop.tools.base import Tool

REPLAY = "replay:"


def web_tools(settings: Config, documents: Path | None) -> list[Tool]:
    """``web_search`` where ``settings.search`` names providers, and ``open_page`` beside it unless ``pages`` says no.

    ``open_page`` also comes alone, where ``pages`` is true. In a replay kept answers of any age are used, so that what
    was found is found again. Raises ConfigError for a provider that is unknown or lacks its key, address or package,
    for a host that is none, and where pages are asked for without the extra ``pages``.
    """
    if settings.search is None and not settings.pages:
        return []
    from keyeloop.tools.answer_cache import AnswerCache
    from keyeloop.tools.pages.reading import can_read
    from keyeloop.tools.pages.tool import OpenPage
    from keyeloop.tools.search.choice import web_search_by

    replayed = settings.model.startswith(REPLAY) and settings.search_cache == "on"
    cache = AnswerCache(None, "any" if replayed else settings.search_cache, max_age_s=settings.search_cache_seconds)
    tools: list[Tool] = []
    outside = False
    if settings.search is not None:
        search = web_search_by(settings.search, documents=documents, searxng_url=settings.searxng_url, cache=cache)
        outside = any(one.name != "documents" for one in search.providers)
        tools.append(search)
    if settings.pages or (settings.pages is None and outside and can_read()):
        hosts = [host.strip() for host in (settings.allow_hosts or "").split(",") if host.strip()]
        tools.append(OpenPage(hosts, cache=cache))
    return tools
