"""Server-sent events out of a byte stream, within bounds."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator

from keyeloop.runtime.errors import BackendError

LINE_BYTES = 8 << 20
"""Longest line: a reply's piece is some hundred bytes."""
REPLY_BYTES = 64 << 20
"""Most bytes of one reply."""
DONE = "[DONE]"


async def data_lines(pieces: AsyncIterable[bytes], where: str) -> AsyncIterator[str]:
    """The ``data`` of every event, however the bytes are cut. Comments and other fields are passed over.

    Raises BackendError for a line or a reply beyond its bound, and for bytes that are not UTF-8.
    """
    data: list[str] = []
    async for line in _lines(pieces, where):
        if not line:
            if data:
                yield "\n".join(data)
            data = []
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
    if data:
        yield "\n".join(data)


async def whole(pieces: AsyncIterable[bytes], where: str) -> bytes:
    """All of a body that is no event stream, within its bound."""
    found = bytearray()
    async for piece in pieces:
        found += piece
        if len(found) > REPLY_BYTES:
            raise BackendError(f"{where} sent more than {REPLY_BYTES:,} bytes in one reply: is it a chat endpoint?")
    return bytes(found)


async def _lines(pieces: AsyncIterable[bytes], where: str) -> AsyncIterator[str]:
    pending, total = bytearray(), 0
    async for piece in pieces:
        total += len(piece)
        if total > REPLY_BYTES:
            raise BackendError(f"{where} sent more than {REPLY_BYTES:,} bytes in one reply: is it a chat endpoint?")
        start = len(pending)
        pending += piece
        while (end := pending.find(b"\n", start)) >= 0:
            yield _decoded(bytes(pending[:end]), where)
            del pending[: end + 1]
            start = 0
        if len(pending) > LINE_BYTES:
            raise BackendError(f"{where} sent a line of more than {LINE_BYTES:,} bytes: is it a chat endpoint?")
    if pending:
        yield _decoded(bytes(pending), where)


def _decoded(line: bytes, where: str) -> str:
    try:
        return line.removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        raise BackendError(f"{where} sent a line that is not UTF-8: {line[:40]!r}") from None
