"""The connections below the clients: whole bytes both ways, time-outs, resets, and servers or readers that are slow."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpcore
import pytest

from keyeloop.model_backend.served.streams import HELD_BYTES, LoopStream, LoopStreams

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
LONG = bytes(range(256)) * 40_000
"""Ten megabytes: more than the system's buffers hold, and ten times what a stream holds."""


@asynccontextmanager
async def connected(serve: Serve) -> AsyncIterator[LoopStream]:
    """A stream to a server that does this with its one connection."""
    done = asyncio.Event()

    async def serving(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()
            done.set()

    server = await asyncio.start_server(serving, "127.0.0.1", 0)
    async with server:
        stream = await LoopStreams().connect_tcp("127.0.0.1", server.sockets[0].getsockname()[1], timeout=5)
        assert isinstance(stream, LoopStream)
        try:
            yield stream
        finally:
            await stream.aclose()
            await asyncio.wait_for(done.wait(), 10)


async def rest_of(stream: LoopStream, most: int = 65_536) -> bytes:
    found = bytearray()
    while piece := await stream.read(most, timeout=5):
        assert len(piece) <= most
        found += piece
    return bytes(found)


async def test_bytes_come_and_go_whole() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(len(LONG)))
        await writer.drain()
        writer.write_eof()
        await asyncio.sleep(0.1)

    async with connected(echo) as stream:
        assert stream.get_extra_info("is_readable") is False
        await stream.write(LONG, timeout=10)
        await stream.write(b"", timeout=5)
        assert await rest_of(stream, most=1000) == LONG
        assert await stream.read(10, timeout=5) == b"", "the end stays the end"
        assert stream.get_extra_info("is_readable") is True


async def test_a_server_that_is_faster_than_the_reader_has_to_wait() -> None:
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        for start in range(0, len(LONG), 65_536):
            writer.write(LONG[start : start + 65_536])
            await writer.drain()
            sent += 65_536
        writer.write_eof()
        await asyncio.sleep(0.1)

    async with connected(flood) as stream:
        await asyncio.sleep(0.3)
        held = sum(map(len, stream._received.pieces))
        assert HELD_BYTES < held < HELD_BYTES + (1 << 20) and sent < len(LONG)
        assert await rest_of(stream) == LONG


async def test_what_takes_too_long_is_told_apart() -> None:
    async def sleep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.4)

    async with connected(sleep) as stream:
        with pytest.raises(httpcore.ReadTimeout):
            await stream.read(10, timeout=0.05)
        with pytest.raises(httpcore.WriteTimeout):
            await stream.write(LONG * 3, timeout=0.05)


async def test_a_reset_is_an_error_and_not_an_end() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    async with connected(reset) as stream:
        await stream.write(b"x", timeout=5)
        with pytest.raises(httpcore.ReadError):
            await stream.read(10, timeout=5)
        assert stream.get_extra_info("is_readable") is True, "httpcore will not use it again"
        with pytest.raises(httpcore.WriteError):
            await stream.write(b"x", timeout=5)


async def test_nobody_there_is_told() -> None:
    with socket.socket() as held:  # bound, not listening
        held.bind(("127.0.0.1", 0))
        with pytest.raises(httpcore.ConnectError, match="Connection refused"):
            await LoopStreams().connect_tcp("127.0.0.1", held.getsockname()[1], timeout=5)
    with pytest.raises(httpcore.ConnectError):
        await LoopStreams().connect_tcp("no-such-host.invalid", 80, timeout=20)
