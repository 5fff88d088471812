"""Fetching a page: no cookies, no keys, no proxies; every redirect is checked as the first address was."""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus

import httpcore
import httpx

from keyeloop.runtime.errors import ToolError
from keyeloop.tools.pages.address import Address, read_address
from keyeloop.tools.pages.connecting import GuardedBackend, Resolver, SystemResolver
from keyeloop.tools.pages.inflating import ACCEPTED, Inflater, too_large
from keyeloop.tools.pages.permits import Permits

REDIRECTS = frozenset({301, 302, 303, 307, 308})
AGENT = "keyeloop/0.1 (reads pages for a person's question)"


@dataclass(frozen=True)
class Caps:
    """What one page may cost."""

    max_bytes: int = 10_000_000
    """Of the body, unpacked."""
    seconds: float = 30.0
    """With all redirects."""
    redirects: int = 5


@dataclass(frozen=True)
class Fetched:
    """A page as it came."""

    url: str
    """Where it was in the end, behind redirects."""
    content_type: str
    """The header's value, parameters included; empty where there was none."""
    body: bytes


class Fetcher:
    """Fetches pages by a set of permits. Keeps nothing between pages: no connection, no cookie."""

    def __init__(self, allow: Iterable[str] = (), caps: Caps | None = None, resolver: Resolver | None = None) -> None:
        """``allow`` are hosts that may be on a private network (see :class:`Permits`)."""
        self.permits = Permits(allow)
        self.caps = caps or Caps()
        self._resolver = resolver or SystemResolver()

    async def fetch(self, url: str, *, accept: str = "text/html,*/*;q=0.8", max_bytes: int | None = None) -> Fetched:
        """Fetch a page. Raises ToolError, for the model to read, for whatever keeps it from being had."""
        cap_bytes = self.caps.max_bytes if max_bytes is None else min(max_bytes, self.caps.max_bytes)
        first = address = read_address(url)
        try:
            async with asyncio.timeout(self.caps.seconds):
                for _ in range(self.caps.redirects + 1):
                    self.permits.check_address(address)
                    answer = await self._once(address, accept, cap_bytes)
                    if isinstance(answer, Fetched):
                        return answer
                    address = answer
        except TimeoutError:
            raise ToolError(f"{first.text} took longer than {self.caps.seconds:g} s and was stopped") from None
        except httpcore.UnsupportedProtocol as error:
            raise ToolError(f"{address.text} cannot be fetched: {error}") from None
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError) as error:
            what = " ".join(str(error).split())[:200] or type(error).__name__
            raise ToolError(f"{address.text} could not be fetched: {what}") from None
        raise ToolError(f"{first.text} leads on more than {self.caps.redirects} times: it was given up")

    async def _once(self, address: Address, accept: str, cap_bytes: int) -> Fetched | Address:
        """The page, or where its server says that it is."""
        url = httpcore.URL(
            scheme=address.scheme.encode(),
            host=address.host.encode(),
            port=address.port,
            target=address.target.encode(),
        )
        headers: dict[bytes | str, bytes | str] = {
            "Host": address.authority,
            "User-Agent": AGENT,
            "Accept": accept,
            "Accept-Encoding": ACCEPTED,
            "Connection": "close",
        }
        patience = {"connect": self.caps.seconds, "read": self.caps.seconds, "write": self.caps.seconds}
        backend = GuardedBackend(self.permits, self._resolver)
        async with (
            httpcore.AsyncConnectionPool(
                ssl_context=trust(), max_connections=1, max_keepalive_connections=0, network_backend=backend
            ) as pool,
            pool.stream("GET", url, headers=headers, extensions={"timeout": patience}) as response,
        ):
            told = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
            if response.status in REDIRECTS and "location" in told:
                return read_address(told["location"], address)
            if response.status != 200:
                raise _refusal(address.text, response.status, told)
            if told.get("content-length", "").isdigit() and int(told["content-length"]) > cap_bytes:
                raise too_large(address.text, cap_bytes)
            inflater = Inflater(told.get("content-encoding", ""), cap_bytes, address.text)
            async for piece in response.aiter_stream():
                inflater.feed(piece)
            return Fetched(address.text, told.get("content-type", ""), inflater.body())


def _refusal(where: str, status: int, told: dict[str, str]) -> ToolError:
    try:
        phrase = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = str(status)
    after = f"; its server asks to wait {told['retry-after'][:40]}" if "retry-after" in told else ""
    return ToolError(f"{where} answered {phrase}{after}: try another page")


@functools.cache
def trust() -> ssl.SSLContext:
    """The certificates that are believed; read once, which takes a while."""
    return httpx.create_ssl_context()
