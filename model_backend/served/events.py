"""Server-sent events out of a byte stream, within bounds."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, Iterator

from keyeloop.runtime.errors import BackendError

LINE_BYTES = 8 << 20
"""Longest line: a reply's piece is some hundred bytes."""
REPLY_BYTES = 64 << 20
"""Most bytes of one reply."""
DONE = "[DONE]"


class DataLines:
    """The ``data`` of every event, however the bytes are cut. Comments and other fields are passed over."""

    def __init__(self, where: str, kind: str) -> None:
        self._where, self._kind = where, kind
        self._pending, self._total = b"", 0
        self._data: list[str] = []

    def feed(self, piece: bytes) -> Iterator[str]:
        """The events that end with these bytes.

        Raises BackendError for a line or a reply beyond its bound, and for bytes that are not UTF-8.
        """
        self._total += len(piece)
        if self._total > REPLY_BYTES:
            raise too_long(self._where, self._kind)
        *lines, self._pending = (self._pending + piece).split(b"\n")
        for line in lines:
            yield from self._take(line.removesuffix(b"\r"))
        if len(self._pending) > LINE_BYTES:
            raise BackendError(f"{self._where} sent a line of more than {LINE_BYTES:,} bytes: is it a {self._kind}?")

    def finish(self) -> Iterator[str]:
        """The last event, once the stream has ended: one that only lacks its blank line, none that was cut."""
        last = self._pending.decode("utf-8", "replace")
        data = [*self._data, last[5:].removeprefix(" ")] if last.startswith("data:") else self._data
        if data and _sound("\n".join(data)):
            yield "\n".join(data)

    def _take(self, line: bytes) -> Iterator[str]:
        if not line:
            if self._data:
                yield "\n".join(self._data)
            self._data = []
        elif line.startswith(b"data:"):
            if len(line) > LINE_BYTES:
                raise BackendError(
                    f"{self._where} sent a line of more than {LINE_BYTES:,} bytes: is it a {self._kind}?"
                )
            try:
                self._data.append(line[5:].removeprefix(b" ").decode())
            except UnicodeDecodeError:
                raise BackendError(f"{self._where} sent a line that is not UTF-8: {line[:40]!r}") from None


async def whole(pieces: AsyncIterable[bytes], where: str, kind: str) -> bytes:
    """All of a body that is no event stream. Raises BackendError beyond :data:`REPLY_BYTES`."""
    found = bytearray()
    async for piece in pieces:
        found += piece
        if len(found) > REPLY_BYTES:
            raise too_long(where, kind)
    return bytes(found)


def too_long(where: str, kind: str) -> BackendError:
    """What a reply beyond its bound raises."""
    return BackendError(f"{where} sent more than {REPLY_BYTES:,} bytes in one reply: is it a {kind}?")


def _sound(data: str) -> bool:
    if data.strip() == DONE:
        return True
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True
