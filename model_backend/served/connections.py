"""Connections to one server, kept between requests, for every event loop its own."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from urllib.request import getproxies

import httpx

from keyeloop.model_backend.served.lane import Lane
from keyeloop.model_backend.served.lanes import Lanes

KEPT_CONNECTIONS = 256
"""Idle ones that are kept at most; how many are open at a time is not limited."""
KEPT_S = 30.0
"""An idle one is not used again after this. One that the server has closed is noticed before it is used."""
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=KEPT_CONNECTIONS, keepalive_expiry=KEPT_S)
HEADERS = {"User-Agent": "keyeloop", "Accept-Encoding": "identity"}


class Connections:
    """The way to one server, for every event loop its own; it is closed with its loop, or by :meth:`close`."""

    def __init__(self, *, tls: bool, proxies: bool, connect_s: float, read_s: float) -> None:
        """``proxies``: the environment may name one. Time-outs in seconds; ``read_s`` lies between two pieces."""
        self._tls, self._proxies = tls, proxies
        self._extensions = {"timeout": httpx.Timeout(read_s, connect=connect_s).as_dict()}
        self._certificates: ssl.SSLContext | None = None
        self._urls: dict[str, httpx.URL] = {}
        self._kept: dict[asyncio.AbstractEventLoop, tuple[httpx.AsyncBaseTransport, AsyncGenerator[None]]] = {}

    @asynccontextmanager
    async def answered(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> AsyncIterator[httpx.Response]:
        """The response to a request, its body still to be read. Raises httpx.TransportError."""
        known = self._urls.get(url) or self._urls.setdefault(url, httpx.URL(url))  # a server is asked at a few paths
        request = httpx.Request(
            method, known, headers={**HEADERS, **headers}, content=body or None, extensions=self._extensions
        )
        response = await (await self._transport()).handle_async_request(request)
        try:
            yield response
        finally:
            await response.aclose()

    async def close(self) -> None:
        """Close those of the running event loop; idempotent."""
        kept = self._kept.get(asyncio.get_running_loop())
        if kept is not None:
            with suppress(RuntimeError):  # a request is being made: its end is the loop's
                await kept[1].aclose()

    async def _transport(self) -> httpx.AsyncBaseTransport:
        loop = asyncio.get_running_loop()
        if loop not in self._kept:
            transport = self._open()
            holding = self._hold(loop, transport)
            self._kept[loop] = transport, holding
            await anext(holding)
        return self._kept[loop][0]

    async def _hold(self, loop: asyncio.AbstractEventLoop, transport: httpx.AsyncBaseTransport) -> AsyncGenerator[None]:
        """Suspended until the loop shuts its generators down, which is where its connections have to be closed."""
        try:
            yield
        finally:
            self._kept.pop(loop, None)
            await transport.aclose()

    def _open(self) -> httpx.AsyncBaseTransport:
        if self._certificates is None:  # read once, and only where they are needed
            self._certificates = httpx.create_ssl_context(verify=self._tls)
        if self._proxies and getproxies():
            return Proxied(httpx.AsyncClient(verify=self._certificates, limits=LIMITS))
        return Lanes(self._lane, KEPT_CONNECTIONS)

    def _lane(self) -> Lane:
        assert self._certificates is not None
        return Lane(self._certificates, KEPT_S)


class Proxied(httpx.AsyncBaseTransport):
    """Leaves to httpx's client which proxy of the environment a request goes through."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send it; no redirect is followed."""
        return await self._client.send(request, stream=True)

    async def aclose(self) -> None:
        """Close the client."""
        await self._client.aclose()
