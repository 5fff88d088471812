"""Connections for many requests at a time: each request has a lane of its own, which the next one finds open."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import httpx


class Lanes(httpx.AsyncBaseTransport):
    """Lends every request a transport that nobody else uses, and keeps it for the next one.

    httpcore's pool looks at all of its connections several times for each request, which at 64 at a time is most of
    the work; a lane's pool holds one.
    """

    def __init__(self, open_lane: Callable[[], httpx.AsyncBaseTransport], kept: int) -> None:
        """At most ``kept`` idle lanes stay open; how many are in use is not limited."""
        self._open_lane, self._most = open_lane, kept
        self._idle: list[httpx.AsyncBaseTransport] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request through a lane; it is free again when the response is closed."""
        lane = self._idle.pop() if self._idle else self._open_lane()
        try:
            response = await lane.handle_async_request(request)
        except BaseException:
            await lane.aclose()
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Lent(response.stream, lambda: self._give_back(lane))
        return response

    async def aclose(self) -> None:
        """Close the idle lanes."""
        idle, self._idle = self._idle, []
        for lane in idle:
            await lane.aclose()

    async def _give_back(self, lane: httpx.AsyncBaseTransport) -> None:
        if len(self._idle) < self._most:
            self._idle.append(lane)  # the last one used is the next: its connection is the freshest
        else:
            await lane.aclose()


class _Lent(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, give_back: Callable[[], Awaitable[None]]) -> None:
        self._stream = stream
        self._give_back: Callable[[], Awaitable[None]] | None = give_back

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()

    async def aclose(self) -> None:
        give_back, self._give_back = self._give_back, None
        try:
            await self._stream.aclose()
        finally:
            if give_back is not None:
                await give_back()
