"""A hub on loopback: one repository, ranges, and connections that are cut, for tests of downloads."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What it holds, what it is to do wrong, and what it was asked for."""

    repository: str
    files: dict[str, bytes]
    cut_after: dict[str, list[int]] = field(default_factory=dict)
    """Of a file: how many bytes each of its first answers gives before the connection breaks."""
    hold_after: dict[str, tuple[int, threading.Event]] = field(default_factory=dict)
    """Of a file: how many bytes its first answer gives before it waits."""
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """File and range of every download."""
    endpoint: str = ""


@contextmanager
def hub_serving(hub: Hub) -> Iterator[Hub]:
    """The hub at ``hub.endpoint`` for the duration of the block."""

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def log_message(self, *_: Any) -> None:
            pass

        def _answer(self, *, body: bool) -> None:
            path = self.path.partition("?")[0]
            if re.fullmatch(f"/api/models/{hub.repository}(/revision/[^/]+)?", path):
                siblings = [{"rfilename": name, "size": len(data)} for name, data in hub.files.items()]
                told = {"id": hub.repository, "sha": COMMIT, "siblings": siblings}
                self._send(200, json.dumps(told).encode())
                return
            found = re.fullmatch(f"/{hub.repository}/resolve/[^/]+/(.+)", path)
            if found is None or found[1] not in hub.files:
                missing = "EntryNotFound" if found else "RepoNotFound"
                self._send(404, b"", {"X-Error-Code": missing})
                return
            self._send_file(found[1], hub.files[found[1]], body)

        def _send_file(self, name: str, data: bytes, body: bool) -> None:
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            first = int(asked[1]) if asked else 0
            headers = {
                "ETag": f'"{hashlib.sha256(data).hexdigest()}"',
                "X-Repo-Commit": COMMIT,
                "Accept-Ranges": "bytes",
            }
            if asked:
                headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
            if not body:
                self._send(200, b"", headers, length=len(data))
                return
            hub.asked.append((name, self.headers.get("Range")))
            rest, cuts = data[first:], hub.cut_after.get(name)
            held, hold = hub.hold_after.pop(name, (0, None))
            if hold is not None:
                self._send(200, rest[:held], headers, length=len(rest))
                hold.wait(60)
                return
            self._send(206 if asked else 200, rest[: cuts.pop(0)] if cuts else rest, headers, length=len(rest))

        def _send(
            self, code: int, data: bytes, headers: dict[str, str] | None = None, length: int | None = None
        ) -> None:
            self.send_response(code)
            for header, value in {
                "Content-Length": str(len(data) if length is None else length),
                **(headers or {}),
            }.items():
                self.send_header(header, value)
            self.end_headers()
            self.wfile.write(data)
            if length is not None and length != len(data):
                self.close_connection = True

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
