"""What kind of page came, by its first bytes before its header: servers often say too little, some the wrong thing."""

from __future__ import annotations

import re
from typing import Literal

from keyeloop.runtime.errors import InputError, ToolError
from keyeloop.runtime.picture import read_header
from keyeloop.tools.pages.fetching import Fetched

PageKind = Literal["html", "pdf", "text", "json", "image"]
_HTML = re.compile(rb"<(?:!doctype\s{1,9}html|html|head|body)\b", re.IGNORECASE)
_TEXTS = frozenset({
    "application/xml", "application/javascript", "application/x-javascript", "application/ecmascript",
    "application/yaml", "application/x-yaml", "application/toml", "application/x-sh", "application/x-tex",
    "application/rtf", "application/sql", "application/x-ndjson", "application/jsonl", "application/x-subrip",
    "image/svg+xml",
})  # fmt: skip
_UNKNOWN = frozenset({"", "application/octet-stream", "binary/octet-stream", "application/x-download"})


def kind_of(page: Fetched) -> PageKind:
    """The kind of a page. Raises ToolError for one that is none that can be opened."""
    kind = page.content_type.partition(";")[0].strip().lower()
    if b"%PDF-" in page.body[:1024]:
        return "pdf"
    if is_picture(page.body):
        return "image"
    if kind in ("text/html", "application/xhtml+xml"):
        return "html"
    if kind == "application/json" or kind.endswith("+json") or kind == "text/json":
        return "json"
    if page.body[:64].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") and _HTML.search(page.body[:1024]):
        return "html"
    if kind.startswith("text/") or kind in _TEXTS or kind.endswith("+xml"):
        return "text"
    if kind in _UNKNOWN and b"\0" not in page.body[:4096]:
        return "json" if page.body.lstrip()[:1] in (b"{", b"[") else "text"
    what = kind or "of no known type"
    raise ToolError(
        f"{page.url} is {what}, which cannot be opened: only HTML, PDF, text, JSON, and JPEG, PNG or WebP pictures"
    )


def charset_of(content_type: str) -> str:
    """The charset that the header names; empty where it names none."""
    found = re.search(r"""charset\s*=\s*["']?([A-Za-z0-9_:.-]{1,40})""", content_type, re.IGNORECASE)
    return found[1] if found else ""


def is_picture(body: bytes) -> bool:
    """Whether the first bytes are those of a picture that can be shown."""
    try:
        read_header(body)
    except InputError:
        return False
    return True
