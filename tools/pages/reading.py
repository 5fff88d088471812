"""The reading child as the tools hold it: started when first needed, given bytes, replaced when it dies."""

from __future__ import annotations

import importlib.util
import signal
import threading
from dataclasses import dataclass
from typing import Any, Literal

import keyeloop.tools.pages
from keyeloop.runtime.errors import ConfigError
from keyeloop.tools.confined.errors import Unusable
from keyeloop.tools.confined.process import ConfinedChild
from keyeloop.tools.confined.wire import WireBroken, WireClosed, receive, send

CPU_S = 20.0
WALL_S = 40.0
MAX_CHARS = 1_500_000
"""Of one document; the rest is left out, and that is told."""
NEEDED = ("trafilatura", "lxml_html_clean", "pypdf")
MISSING = 'pages and PDF files need more packages: pip install "keyeloop[pages]"'
Kind = Literal["html", "pdf", "text", "json"]


@dataclass(frozen=True)
class PagePicture:
    """A picture that a page shows: its address, and what the page says of it."""

    url: str
    about: str = ""


@dataclass(frozen=True)
class Document:
    """What can be read of a page or a file."""

    text: str
    title: str = ""
    published: str | None = None
    """ISO date, where the page tells one."""
    pictures: tuple[PagePicture, ...] = ()
    pages: int | None = None
    """Of a PDF."""
    left_out: str = ""
    """What is missing of it, in words; empty where nothing is."""
    charset: str = ""


def can_read() -> bool:
    """Whether the packages of the extra ``pages`` are installed."""
    return all(importlib.util.find_spec(name) is not None for name in NEEDED)


class PageReader:
    """Reads untrusted HTML, PDF, text and JSON in a child process of its own; usable from any thread, one at a time.

    The child has limits on memory, processor time and files, no uid 0, no network, and on Linux x86-64 and aarch64 a
    system-call filter. One that dies or stalls is replaced at the next page.
    """

    def __init__(self, *, cpu_s: float = CPU_S, wall_s: float = WALL_S) -> None:
        """``cpu_s`` and ``wall_s`` bound one page. Raises ConfigError where the extra ``pages`` is not installed."""
        if not can_read():
            raise ConfigError(MISSING)
        self._cpu_s, self._wall_s = cpu_s, wall_s
        self._turn = threading.Lock()
        self._child = ConfinedChild(
            "keyeloop.tools.pages.child.main", [keyeloop.tools.pages], what="page reader", imports="trafilatura, pypdf"
        )

    @property
    def pid(self) -> int | None:
        """Process id of the child, None while there is none."""
        return self._child.pid

    @property
    def filtered(self) -> bool:
        """Whether the running child has the system-call filter."""
        return self._child.filtered

    def read(
        self, kind: Kind, body: bytes, *, charset: str = "", url: str = "", max_chars: int = MAX_CHARS
    ) -> Document:
        """The text of a page. ``charset`` is what its header says, ``url`` where it is from.

        Raises Unusable, a clause that begins with a verb, for bytes that cannot be read within the limits.
        """
        request = {"op": kind, "charset": charset, "url": url, "cpu_s": self._cpu_s, "max_chars": max_chars}
        with self._turn:
            try:
                channel = self._child.channel()
                channel.settimeout(self._wall_s)
                send(channel, request, body)
                reply, payload, _ = receive(channel)
            except TimeoutError:
                self._child.drop(0)
                raise Unusable(f"took longer than {self._wall_s:g} s to read and was stopped") from None
            except (WireClosed, WireBroken):
                raise self._death(self._child.drop(5.0)) from None
            if reply.get("ends"):
                self._child.drop(5.0)
        if "error" in reply:
            raise Unusable(" ".join(str(reply["error"]).split())[:300])
        return _document(reply, payload.decode("utf-8", "replace"))

    def close(self) -> None:
        """End the child; idempotent."""
        self._child.kill()
        with self._turn:
            self._child.drop(0)

    def __enter__(self) -> PageReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _death(self, status: int | None) -> Unusable:
        if status in (-signal.SIGXCPU, -signal.SIGKILL):
            return Unusable(f"took more than {self._cpu_s:g} s of processor time to read and was stopped")
        return Unusable(f"crashed its reader (exit status {status}): it is damaged or hostile")


def _document(reply: dict[str, Any], text: str) -> Document:
    listed = reply.get("pictures")
    pictures = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    left_out = []
    if reply.get("left_out"):
        left_out.append(f"{int(reply['left_out'])} of its {int(reply['pages'])} pages")
    if reply.get("cut_chars"):
        left_out.append(f"{int(reply['cut_chars']):,} more characters")
    return Document(
        text,
        str(reply.get("title") or "")[:300],
        str(reply["published"])[:40] if reply.get("published") else None,
        tuple(PagePicture(str(one.get("url", "")), str(one.get("about", ""))) for one in pictures),
        int(reply["pages"]) if reply.get("pages") is not None else None,
        " and ".join(left_out),
        str(reply.get("charset") or ""),
    )
