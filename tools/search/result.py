"""What every provider finds: results of one type, told apart by their addresses."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from urllib.parse import parse_qsl, urlencode, urlsplit

SNIPPET_CHARS = 600
MAX_URL_CHARS = 2000
_TAG = re.compile(r"</?[a-zA-Z][^>]{0,200}>")
_NAMES_OF_ADVERTS = ("utm_", "mtm_")
_ADVERTS = frozenset({"fbclid", "gclid", "dclid", "msclkid", "mc_cid", "mc_eid", "igshid", "ref_src"})


@dataclass(frozen=True)
class SearchResult:
    """One page that was found."""

    title: str
    url: str
    """An http or https address; for documents a path below their folder."""
    snippet: str
    """What the page says about the question, on one line."""
    published: str | None
    """ISO date where the provider tells one that can be read, else what it tells (``3 days ago``)."""
    provider: str
    rank: int
    """From 1, as the provider ordered them."""


def make_result(
    provider: str, rank: int, title: object, url: object, snippet: object, published: object
) -> SearchResult:
    """A result from what a provider sent, whatever it sent: plain text on one line, without tags and entities."""
    return SearchResult(
        plain(title)[:300],
        str(url or "").strip(),
        plain(snippet)[:SNIPPET_CHARS],
        date_of(published),
        provider,
        rank,
    )


def merged(results: Iterable[SearchResult], limit: int) -> list[SearchResult]:
    """The first ``limit`` results with an address and no earlier one for the same page, ranked anew in this order.

    Of a page that came twice the first stays, with a date or snippet of the later one where it had none.
    """
    kept: dict[str, SearchResult] = {}
    for one in results:
        key = page_key(one.url)
        if not key:
            continue
        first = kept.get(key)
        if first is None:
            kept[key] = one
        else:
            kept[key] = replace(first, published=first.published or one.published, snippet=first.snippet or one.snippet)
    return [replace(one, rank=rank) for rank, one in enumerate(list(kept.values())[:limit], 1)]


def page_key(url: str) -> str:
    """The same for two addresses that are of the same page, to all appearances; empty for none, or one without end."""
    if len(url) > MAX_URL_CHARS:
        return ""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return ""
    if not parts.scheme:
        return url  # a path
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return ""
    host = parts.hostname.removeprefix("www.")
    own = "" if port in (None, 80, 443) else f":{port}"
    told = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if not _is_advert(name)]
    query = f"?{urlencode(sorted(told))}" if told else ""
    return f"{host}{own}{parts.path.rstrip('/')}{query}"


def plain(value: object) -> str:
    """Text on one line, without HTML."""
    return " ".join(html.unescape(_TAG.sub("", str(value or ""))).split())


def date_of(value: object) -> str | None:
    """``2024-05-01`` of an ISO time or one as in mail (``Wed, 1 May 2024 08:00:00 GMT``); other words as they are."""
    text = plain(value)[:60]
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            return read(text).date().isoformat()
        except ValueError:
            continue
    return text or None


def _is_advert(name: str) -> bool:
    return name.lower().startswith(_NAMES_OF_ADVERTS) or name.lower() in _ADVERTS
