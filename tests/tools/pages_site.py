"""A web site and a name server on loopback, for tests of fetching and of search: real sockets, no network."""

from __future__ import annotations

import ipaddress
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import dns.asyncresolver
import dns.flags
import dns.message
import dns.rcode
import dns.resolver
import dns.rrset

from keyeloop.tools.pages.address import IP


@dataclass(frozen=True)
class Asked:
    """One request that came: ``query`` has the last value of each name, ``data`` the body, read where it is JSON."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    data: Any = None


@dataclass(frozen=True)
class Reply:
    """What is sent back; ``body`` may be pieces without end."""

    body: bytes | Iterator[bytes] = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Any, status: int = 200, **headers: str) -> Reply:
        """JSON; underscores in the names of headers stand for hyphens."""
        told = {name.replace("_", "-"): text for name, text in headers.items()}
        return cls(json.dumps(value).encode(), status, {"Content-Type": "application/json", **told})


Answer = Reply | Callable[[Asked], Reply]


class Site:
    """Answers paths by ``routes``: one reply, a function, or a list that is used up and whose last one stays."""

    def __init__(self) -> None:
        self.routes: dict[str, Answer | list[Answer]] = {}
        self.asked: list[Asked] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with suppress(ConnectionError):
                    self.answer()

            do_POST = do_GET

            def answer(self) -> None:
                parts = urlsplit(self.path)
                data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
                headers = {name.lower(): value for name, value in self.headers.items()}
                sent: Any = json.loads(data) if "json" in headers.get("content-type", "") else data.decode()
                asked = Asked(self.command, parts.path, query, headers, sent or None)
                site.asked.append(asked)
                reply = site.reply(asked)
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Connection", "close")
                self.close_connection = True
                if isinstance(reply.body, bytes):
                    self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                for piece in (reply.body,) if isinstance(reply.body, bytes) else reply.body:
                    self.wfile.write(piece)

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.port = self._server.server_address[1]
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.host}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def reply(self, asked: Asked) -> Reply:
        found = self.routes.get(asked.path, Reply(b"no such page", 404))
        if isinstance(found, list):
            found = found.pop(0) if len(found) > 1 else found[0]
        return found if isinstance(found, Reply) else found(asked)

    def page(self, path: str, body: bytes | str, kind: str = "text/html; charset=utf-8", **headers: str) -> str:
        """Serve ``body``; its address."""
        data = body.encode() if isinstance(body, str) else body
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        self.routes[path] = Reply(data, headers={"Content-Type": kind, **told})
        return self.url + path

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class NameServer:
    """A DNS server on loopback. ``zone`` has the addresses of each name; a list of lists is used up one by one."""

    def __init__(self, zone: Mapping[str, Sequence[Any]]) -> None:
        self.zone = {name: list(addresses) for name, addresses in zone.items()}
        self.asked: list[tuple[str, str]] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                data, sender = self._socket.recvfrom(4096)
            except OSError:
                return
            query = dns.message.from_wire(data)
            (question,) = query.question
            name, kind = question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)
            self.asked.append((name, kind))
            reply = dns.message.make_response(query)
            reply.flags |= dns.flags.RA
            addresses = self.zone.get(name)
            if addresses is None:
                reply.set_rcode(dns.rcode.NXDOMAIN)
            else:
                if addresses and isinstance(addresses[0], list):
                    addresses = addresses.pop(0) if kind == "A" and len(addresses) > 1 else addresses[0]
                wanted = [one for one in addresses if (":" in one) == (kind == "AAAA")]
                if wanted:
                    reply.answer.append(dns.rrset.from_text(question.name, 0, "IN", kind, *wanted))
            self._socket.sendto(reply.to_wire(), sender)

    def close(self) -> None:
        self._socket.close()


class AskingResolver:
    """Resolves by asking one name server, every time anew."""

    def __init__(self, port: int) -> None:
        self._resolver = dns.asyncresolver.Resolver(configure=False)
        self._resolver.nameservers, self._resolver.port = ["127.0.0.1"], port
        self._resolver.lifetime = 2.0

    async def resolve(self, host: str, port: int) -> Sequence[IP]:
        found: list[IP] = []
        for kind in ("A", "AAAA"):
            with suppress(dns.resolver.NoAnswer):
                try:
                    answer = await self._resolver.resolve(f"{host}.", kind, search=False)
                except dns.resolver.NXDOMAIN as error:
                    raise OSError(str(error)) from None
                found += [ipaddress.ip_address(one.address) for one in answer]
        return found


@contextmanager
def serving() -> Iterator[Site]:
    """A site for as long as the block runs."""
    site = Site()
    try:
        yield site
    finally:
        site.close()
