"""One connection after another to one server, for one request at a time."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import httpcore
import httpx

from keyeloop.model_backend.served.streams import LoopStreams


class Lane(httpx.AsyncBaseTransport):
    """Keeps a connection while the server does, and opens the next one when it is needed. It asks no proxy."""

    def __init__(self, certificates: ssl.SSLContext, kept_s: float) -> None:
        """An idle connection is not used again after ``kept_s`` seconds, nor when the server has closed it."""
        self._certificates, self._kept_s = certificates, kept_s
        self._connection: httpcore.AsyncHTTPConnection | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; nothing else may be on its way through this lane. Raises httpx.TransportError."""
        url = request.url
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        with _as_httpx():
            connection = await self._ready(target.origin)
            response = await connection.handle_async_request(
                httpcore.Request(
                    request.method,
                    target,
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        return httpx.Response(
            response.status, headers=response.headers, stream=_Body(response), extensions=response.extensions
        )

    async def aclose(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with _as_httpx():
                await connection.aclose()

    async def _ready(self, origin: httpcore.Origin) -> httpcore.AsyncHTTPConnection:
        kept = self._connection
        if kept is not None and kept.is_idle() and not kept.has_expired():  # a reply that was left half read is neither
            return kept
        await self.aclose()
        plain = origin.scheme == b"http"
        self._connection = httpcore.AsyncHTTPConnection(
            origin,
            ssl_context=self._certificates,
            keepalive_expiry=self._kept_s,
            network_backend=LoopStreams() if plain else None,
        )
        return self._connection


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_httpx():
            async for piece in self._response.aiter_stream():
                yield piece

    async def aclose(self) -> None:
        with _as_httpx():
            await self._response.aclose()


@contextmanager
def _as_httpx() -> Iterator[None]:
    """httpcore's errors under the names that they have in httpx."""
    try:
        yield
    except (
        httpcore.NetworkError,
        httpcore.TimeoutException,
        httpcore.ProtocolError,
        httpcore.UnsupportedProtocol,
    ) as error:
        kind: Any = getattr(httpx, type(error).__name__, httpx.TransportError)
        raise kind(str(error)) from error
