"""HTML to Markdown of its main part, with its title, its date and its pictures."""

from __future__ import annotations

import re
from contextlib import suppress
from copy import deepcopy
from typing import Any
from urllib.parse import urljoin

import lxml.html
import trafilatura
from lxml.etree import ParserError
from trafilatura.metadata import extract_metadata

MIN_MAIN_CHARS = 250
"""Where less was taken for the main part, and the page has much more to say, all of its text is given."""
MIN_PICTURE_PX = 100
MAX_PICTURES = 20
_DATES = {"extensive_search": False, "original_date": True, "outputformat": "%Y-%m-%d"}
_NOT_XML = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\ud800-\\udfff\\ufffe\\uffff]")
_UNSHOWN = (".svg", ".gif", ".ico")


def read_html(text: str, url: str) -> dict[str, Any]:
    """``text`` (Markdown), ``title``, ``published`` (ISO date or None) and ``pictures`` of a page."""
    try:
        tree = lxml.html.document_fromstring(_fit(text))
    except (ParserError, ValueError):
        return {"text": "", "title": "", "published": None, "pictures": []}
    if url:
        with suppress(ValueError):  # the page's own base is no address
            tree.make_links_absolute(url, handle_failures="discard")
    title = " ".join((tree.findtext(".//title") or "").split())
    published, heading = _facts(tree)
    return {
        "text": _main(tree),
        "title": title or heading,
        "published": published,
        "pictures": _pictures(tree, url),
    }


def _main(tree: Any) -> str:
    found = trafilatura.extract(
        deepcopy(tree),
        output_format="markdown",
        include_links=True,
        include_tables=True,
        include_formatting=True,
        include_comments=False,
        deduplicate=False,
    )
    found = (found or "").strip()
    if len(found) >= MIN_MAIN_CHARS:
        return found
    whole = str(trafilatura.html2txt(deepcopy(tree)) or "").strip()
    return whole if len(whole) > 2 * len(found) else found


def _facts(tree: Any) -> tuple[str | None, str]:
    try:
        facts = extract_metadata(deepcopy(tree), date_config=dict(_DATES))
    except Exception:  # of a page's head nothing is needed so much that its text should be lost for it
        return None, ""
    return (facts.date or None, facts.title or "") if facts is not None else (None, "")


def _pictures(tree: Any, url: str) -> list[dict[str, str]]:
    """Main pictures, likeliest first: the one that the page names for previews, those of its article, the others."""
    named = tree.xpath("//meta[@property='og:image' or @name='og:image' or @name='twitter:image']/@content")
    article = tree.xpath("//*[self::article or self::main or @role='main']//img")
    found: dict[str, str] = {}
    for address, about in [(one, "") for one in named] + [
        (_source(image), image.get("alt") or "") for image in [*article, *tree.xpath("//img")] if _is_large(image)
    ]:
        whole = _joined(url, address)
        if whole is not None and (whole not in found or not found[whole]):
            found[whole] = " ".join(about.split())[:200]
    return [{"url": address, "about": about} for address, about in list(found.items())[:MAX_PICTURES]]


def _joined(base: str, address: str) -> str | None:
    address = address.strip()
    if not address or address.lower().startswith("data:"):
        return None
    try:
        whole = urljoin(base, address)
    except ValueError:
        return None
    plain = whole.lower().split("?")[0].split("#")[0]
    return whole if plain.startswith(("http://", "https://")) and not plain.endswith(_UNSHOWN) else None


def _source(image: Any) -> str:
    listed = (image.get("srcset") or image.get("data-srcset") or "").split(",")[-1].split()
    return str(image.get("src") or image.get("data-src") or (listed[0] if listed else ""))


def _is_large(image: Any) -> bool:
    sides = [re.match(r"\s*([0-9]{1,6})\s*(px)?\s*$", image.get(side) or "") for side in ("width", "height")]
    return all(side is None or int(side[1]) >= MIN_PICTURE_PX for side in sides)


def _fit(text: str) -> str:
    """lxml takes no text that names an encoding for itself, and no letter that XML has not."""
    return re.sub(r"\A\s*<\?xml[^>]*\?>", "", _NOT_XML.sub("", text))
