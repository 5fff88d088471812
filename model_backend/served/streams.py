"""Connections of asyncio's own for httpcore, which let the event loop turn only where something is waited for.

httpcore's way through anyio lets it turn before every read and write, and asks the system for a connection's state
before every request: for short requests, as an agent's turns of text are, a good part of their cost.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Iterable
from typing import Any

import httpcore

HELD_BYTES = 1 << 20
"""Received and not read yet: beyond this the server has to wait."""


class LoopStreams(httpcore.AsyncNetworkBackend):
    """Opens plain connections in the running event loop."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to one of the host's addresses. Raises httpcore.ConnectTimeout, httpcore.ConnectError."""
        local = None if local_address is None else (local_address, 0)
        try:
            async with asyncio.timeout(timeout):
                transport, received = await asyncio.get_running_loop().create_connection(
                    _Received, host, port, local_addr=local, happy_eyeballs_delay=0.25
                )
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(str(error)) from error
        except OSError as error:
            said = os.strerror(error.errno) if error.errno is not None and error.errno > 0 else str(error)
            raise httpcore.ConnectError(said) from error  # asyncio's own words name the call, not what happened
        for option in socket_options or ():
            transport.get_extra_info("socket").setsockopt(*option)
        return LoopStream(transport, received)


class LoopStream(httpcore.AsyncNetworkStream):
    """One connection. Timeouts are in seconds."""

    def __init__(self, transport: asyncio.Transport, received: _Received) -> None:
        self._transport, self._received = transport, received

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Bytes that have come, or the next ones; none at the end. Raises httpcore.ReadTimeout, httpcore.ReadError."""
        received = self._received
        if not received.pieces and not received.ended:
            try:
                async with asyncio.timeout(timeout):
                    await received.wait()
            except TimeoutError as error:
                raise httpcore.ReadTimeout from error
        if received.pieces:
            return received.take(max_bytes)
        if received.problem is not None:
            raise httpcore.ReadError(str(received.problem)) from received.problem
        return b""

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send, waiting where the other side is slow. Raises httpcore.WriteTimeout, httpcore.WriteError."""
        if not buffer:
            return
        if self._transport.is_closing():
            raise httpcore.WriteError(str(self._received.problem or "the connection is closed"))
        self._transport.write(buffer)
        if not self._received.writable.is_set():
            try:
                async with asyncio.timeout(timeout):
                    await self._received.writable.wait()
            except TimeoutError as error:
                raise httpcore.WriteTimeout from error
        if self._received.problem is not None:
            raise httpcore.WriteError(str(self._received.problem)) from self._received.problem

    async def aclose(self) -> None:
        """Close it at once: what was not sent yet is dropped."""
        self._transport.abort()
        await asyncio.sleep(0)  # in this turn of the loop the socket is closed

    def get_extra_info(self, info: str) -> Any:
        """``is_readable``, by which httpcore knows that an idle connection was closed; else what the transport says."""
        if info == "is_readable":
            return bool(self._received.pieces) or self._received.ended
        return self._transport.get_extra_info(info)


class _Received(asyncio.Protocol):
    """What a connection has received, and what became of it."""

    def __init__(self) -> None:
        self.pieces: deque[bytes] = deque()
        self.ended = False
        self.problem: Exception | None = None
        self.writable = asyncio.Event()
        self.writable.set()
        self._held_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None

    async def wait(self) -> None:
        """Until something comes, or nothing more will."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def take(self, most: int) -> bytes:
        """The next piece, of at most so many bytes."""
        piece = self.pieces.popleft()
        if len(piece) > most:
            self.pieces.appendleft(piece[most:])
            piece = piece[:most]
        before = self._held_bytes
        self._held_bytes -= len(piece)
        if before > HELD_BYTES >= self._held_bytes and self._transport is not None and not self.ended:
            self._transport.resume_reading()
        return piece

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)
        before = self._held_bytes
        self._held_bytes += len(data)
        if before <= HELD_BYTES < self._held_bytes and self._transport is not None:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        self.ended = True
        self._wake()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
        self.problem = self.problem or exc
        self.writable.set()
        self._wake()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
