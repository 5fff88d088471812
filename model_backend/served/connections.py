"""Connections to one server, kept between requests, for every event loop its own."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any
from urllib.request import getproxies

import httpx

from keyeloop.model_backend.served.lanes import Lanes

KEPT_CONNECTIONS = 256
"""Idle ones that are kept at most; how many are open at a time is not limited."""
KEPT_S = 30.0
"""An idle one is not used again after this. One that the server has closed is noticed before it is used."""
HEADERS = {"User-Agent": "keyeloop", "Accept-Encoding": "identity"}


class Connections:
    """An HTTP client for every event loop that asks for one; it is closed with its loop, or by :meth:`close`."""

    def __init__(self, *, tls: bool, proxies: bool, connect_s: float, read_s: float) -> None:
        """``proxies``: the environment may name one."""
        self._tls, self._proxies = tls, proxies
        self._patience = httpx.Timeout(read_s, connect=connect_s)
        self._certificates: ssl.SSLContext | None = None
        self._kept: dict[asyncio.AbstractEventLoop, tuple[httpx.AsyncClient, AsyncGenerator[None]]] = {}

    async def client(self) -> httpx.AsyncClient:
        """The client of the running event loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._kept:
            client = self._open()
            holding = self._hold(loop, client)
            self._kept[loop] = client, holding
            await anext(holding)
        return self._kept[loop][0]

    async def close(self) -> None:
        """Close those of the running event loop; idempotent."""
        kept = self._kept.get(asyncio.get_running_loop())
        if kept is not None:
            with suppress(RuntimeError):  # a request is being made: its end is the loop's
                await kept[1].aclose()

    async def _hold(self, loop: asyncio.AbstractEventLoop, client: httpx.AsyncClient) -> AsyncGenerator[None]:
        """Suspended until the loop shuts its generators down, which is where its connections have to be closed."""
        try:
            async with client:
                yield
        finally:
            self._kept.pop(loop, None)

    def _open(self) -> httpx.AsyncClient:
        if self._certificates is None:  # read once, and only where they are needed
            self._certificates = httpx.create_ssl_context(verify=self._tls)
        options: dict[str, Any] = {"timeout": self._patience, "headers": HEADERS}
        if self._proxies and getproxies():
            limits = _limits(KEPT_CONNECTIONS)
            return httpx.AsyncClient(verify=self._certificates, limits=limits, **options)
        return httpx.AsyncClient(transport=Lanes(self._lane, KEPT_CONNECTIONS), trust_env=False, **options)

    def _lane(self) -> httpx.AsyncHTTPTransport:
        assert self._certificates is not None
        return httpx.AsyncHTTPTransport(verify=self._certificates, limits=_limits(1), trust_env=False)


def _limits(kept: int) -> httpx.Limits:
    return httpx.Limits(max_connections=None, max_keepalive_connections=kept, keepalive_expiry=KEPT_S)
