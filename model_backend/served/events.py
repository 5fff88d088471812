"""Server-sent events out of a byte stream, within bounds."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator

from keyeloop.runtime.errors import BackendError

LINE_BYTES = 8 << 20
"""Longest line: a reply's piece is some hundred bytes."""
REPLY_BYTES = 64 << 20
"""Most bytes of one reply."""
DONE = "[DONE]"


async def data_lines(pieces: AsyncIterable[bytes], where: str, kind: str) -> AsyncIterator[str]:
    """The ``data`` of every event, however the bytes are cut. Comments and other fields are passed over.

    An event that the end of the stream has cut is left out; a whole one that only lacks its blank line is not. Raises
    BackendError for a line or a reply beyond its bound, and for bytes that are not UTF-8.
    """
    data: list[str] = []
    async for line in _lines(pieces, where, kind):
        if not line:
            if data:
                yield "\n".join(data)
            data = []
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
    if data and _sound("\n".join(data)):
        yield "\n".join(data)


async def whole(pieces: AsyncIterable[bytes], where: str, kind: str) -> bytes:
    """All of a body that is no event stream, within its bound."""
    found = bytearray()
    async for piece in pieces:
        found += piece
        if len(found) > REPLY_BYTES:
            raise BackendError(f"{where} sent more than {REPLY_BYTES:,} bytes in one reply: is it a {kind}?")
    return bytes(found)


async def _lines(pieces: AsyncIterable[bytes], where: str, kind: str) -> AsyncIterator[str]:
    pending, total = bytearray(), 0
    async for piece in pieces:
        total += len(piece)
        if total > REPLY_BYTES:
            raise BackendError(f"{where} sent more than {REPLY_BYTES:,} bytes in one reply: is it a {kind}?")
        start = len(pending)
        pending += piece
        while (end := pending.find(b"\n", start)) >= 0:
            yield _decoded(bytes(pending[:end]), where)
            del pending[: end + 1]
            start = 0
        if len(pending) > LINE_BYTES:
            raise BackendError(f"{where} sent a line of more than {LINE_BYTES:,} bytes: is it a {kind}?")
    if pending:
        yield pending.decode("utf-8", "replace")


def _sound(data: str) -> bool:
    if data.strip() == DONE:
        return True
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


def _decoded(line: bytes, where: str) -> str:
    try:
        return line.removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        raise BackendError(f"{where} sent a line that is not UTF-8: {line[:40]!r}") from None
