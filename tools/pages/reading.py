"""The reading child as the tools hold it: started when first needed, given bytes, replaced when it dies."""

from __future__ import annotations

import importlib.util
import json
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import Any, Literal

import keyeloop
import keyeloop.runtime
import keyeloop.tools
import keyeloop.tools.pages
import keyeloop.tools.video
from keyeloop.runtime.errors import ConfigError, OperatorError
from keyeloop.tools.video.child.errors import Unusable
from keyeloop.tools.video.child.wire import WireBroken, WireClosed, receive, send

START_TIMEOUT_S = 60.0
CPU_S = 20.0
WALL_S = 40.0
MAX_CHARS = 1_500_000
"""Of one document; the rest is left out, and that is told."""
NEEDED = ("trafilatura", "lxml_html_clean", "pypdf")
MISSING = 'pages and PDF files need more packages: pip install "keyeloop[pages]"'
Kind = Literal["html", "pdf", "text", "json"]
_BOOT = """
import json, sys, types
setup = json.loads(sys.argv[1])
sys.path[:] = setup["path"]
for name, folders in setup["packages"].items():
    package = sys.modules[name] = types.ModuleType(name)
    package.__path__ = folders
from keyeloop.tools.pages.child.main import main
main(setup["channel"])
"""


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
        self._child: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self.filtered = False
        """Whether the running child has the system-call filter."""

    @property
    def pid(self) -> int | None:
        """Process id of the child, None while there is none."""
        return None if self._child is None else self._child.pid

    def read(
        self, kind: Kind, body: bytes, *, charset: str = "", url: str = "", max_chars: int = MAX_CHARS
    ) -> Document:
        """The text of a page. ``charset`` is what its header says, ``url`` where it is from.

        Raises Unusable, a clause that begins with a verb, for bytes that cannot be read within the limits.
        """
        request = {"op": kind, "charset": charset, "url": url, "cpu_s": self._cpu_s, "max_chars": max_chars}
        with self._turn:
            try:
                channel = self._ready()
                channel.settimeout(self._wall_s)
                send(channel, request, body)
                reply, payload, _ = receive(channel)
            except TimeoutError:
                self._drop(0)
                raise Unusable(f"took longer than {self._wall_s:g} s to read and was stopped") from None
            except (WireClosed, WireBroken):
                raise self._death(self._drop(5.0)) from None
            if reply.get("ends"):
                self._drop(5.0)
        if "error" in reply:
            raise Unusable(" ".join(str(reply["error"]).split())[:300])
        return _document(reply, payload.decode("utf-8", "replace"))

    def close(self) -> None:
        """End the child; idempotent."""
        child = self._child
        if child is not None:
            child.kill()
        with self._turn:
            self._drop(0)

    def __enter__(self) -> PageReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ready(self) -> socket.socket:
        if self._channel is not None and self._child is not None and self._child.poll() is None:
            return self._channel
        self._drop(0)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        packages = (keyeloop, keyeloop.runtime, keyeloop.tools, keyeloop.tools.video, keyeloop.tools.pages)
        with theirs:
            setup = {
                "path": [entry for entry in sys.path if entry],
                "packages": {package.__name__: list(package.__path__) for package in packages},
                "channel": theirs.fileno(),
            }
            self._child = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", "-c", _BOOT, json.dumps(setup)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={"LC_ALL": "C.UTF-8", "MALLOC_ARENA_MAX": "2"},
            )
        self._channel = ours
        ours.settimeout(START_TIMEOUT_S)
        try:
            hello, _, _ = receive(ours)
        except (WireClosed, WireBroken, TimeoutError) as error:
            status = self._drop(1.0)
            raise OperatorError(
                f"the page reader did not start (exit status {status}, {error}); "
                "check that `python -c 'import trafilatura, pypdf'` works here"
            ) from None
        self.filtered = hello.get("filtered") is True
        return ours

    def _drop(self, patience_s: float) -> int | None:
        child, channel, self._child, self._channel = self._child, self._channel, None, None
        if channel is not None:
            channel.close()
        if child is None:
            return None
        try:
            child.wait(patience_s)
        except subprocess.TimeoutExpired:
            child.kill()
        return child.wait()

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
