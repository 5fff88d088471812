"""The reading child's life: load everything, give up rights, then read one page after the other.

Requests carry the page's bytes as payload: ``{"op": "html" | "pdf" | "text" | "json", "charset", "url", "cpu_s",
"max_chars"}``. Replies are what the readers give, ``text`` apart, which is the payload in UTF-8; refusals are
``{"error": clause}``, with ``"ends"`` after what nobody foresaw, when the process also ends.
"""

from __future__ import annotations

import codecs
import encodings
import importlib
import json
import logging
import pkgutil
import resource
import socket
import sys
import warnings
from contextlib import suppress
from typing import Any

import courlan

from keyeloop.tools.confined.errors import Unusable
from keyeloop.tools.confined.limits import allow_cpu, lock_down
from keyeloop.tools.confined.wire import WireClosed, receive, send
from keyeloop.tools.pages.child.charset import decode
from keyeloop.tools.pages.child.html import read_html
from keyeloop.tools.pages.child.pdf import read_pdf

MEMORY_BYTES = 1536 << 20
RECURSION = 2000
_LOADED = ("trafilatura", "htmldate", "courlan", "justext", "charset_normalizer", "pypdf")
_NOT_LOADED = ("cli", "downloads", "spider", "gui")


def main(channel_fd: int) -> None:
    """Serve the socket ``channel_fd`` until the other side closes it."""
    channel = socket.socket(fileno=channel_fd)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    sys.setrecursionlimit(RECURSION)
    _warm_up()
    filtered = lock_down()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    send(channel, {"ready": True, "filtered": filtered})
    while True:
        try:
            header, body, _ = receive(channel)
        except WireClosed:
            return
        allow_cpu(float(header["cpu_s"]))
        try:
            reply = _read(header, body)
        except Unusable as error:
            reply = {"error": str(error)}
        except (MemoryError, RecursionError) as error:
            kind = "memory" if isinstance(error, MemoryError) else "nesting"
            reply = {"error": f"needs more {kind} than reading a page may use"}
        except Exception as error:
            send(channel, {"error": f"cannot be read ({type(error).__name__}: {error})", "ends": True})
            return
        text = str(reply.pop("text", ""))
        most = int(header["max_chars"])
        reply["cut_chars"] = max(0, len(text) - most)
        send(channel, reply, text[:most].encode("utf-8", "replace"))


def _read(header: dict[str, Any], body: bytes) -> dict[str, Any]:
    kind = header["op"]
    if kind == "pdf":
        return read_pdf(body, int(header["max_chars"]), float(header["cpu_s"]))
    text, charset = decode(body, str(header["charset"]), html=kind == "html")
    if kind == "html":
        return {**read_html(text, str(header["url"])), "charset": charset}
    if kind == "json":
        with suppress(ValueError):
            return {"text": json.dumps(json.loads(text), ensure_ascii=False, indent=1), "charset": charset}
    if "\0" in text:
        raise Unusable("is binary data, not text")
    return {"text": text, "charset": charset}


def _warm_up() -> None:
    """Load all that could be loaded later, when files can no longer be opened."""
    for package in _LOADED:
        folders = importlib.import_module(package).__path__
        for module in pkgutil.walk_packages(folders, f"{package}.", onerror=lambda _: None):
            if not set(module.name.split(".")) & set(_NOT_LOADED) and "__main__" not in module.name:
                with suppress(Exception):
                    importlib.import_module(module.name)
    for module in pkgutil.iter_modules(encodings.__path__):
        with suppress(LookupError):
            codecs.lookup(module.name)
    courlan.extract_domain(
        "https://www.warm.example.co.uk/"
    )  # reads its list of suffixes; later it would ask a network
    paragraph = "Words of a page that is read to have everything loaded, dated 3 March 2024. " * 8
    page = f"<html><head><title>Warm</title></head><body><article><h1>Warm</h1><p>{paragraph}</p><p>{paragraph}</p>"
    read_html(f"{page}<ul><li>one</li></ul><img src='/a.jpg' alt='a'></article></body></html>", "https://warm.example/")
    read_html(f"<html><body><p>{paragraph[:80]}", "")
    decode("été à la plage, où l'on mange".encode("cp1252") * 40, "", html=True)
    with suppress(Unusable):
        read_pdf(b"%PDF-1.4\n%%EOF", 100, 1.0)
