"""Framed messages: two big-endian 32-bit lengths, a JSON object, raw bytes. ``frames.py`` is the host's side."""

from __future__ import annotations

import fcntl
import json
import os
import struct
from typing import Any

HEADER = struct.Struct("!II")
PRIVATE_FD = 64
"""Descriptors that user code has no business with are moved to this number and above."""


class Pipe:
    """Framed messages over two descriptors that user code does not inherit."""

    def __init__(self) -> None:
        self._requests = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, PRIVATE_FD)
        self._replies = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, PRIVATE_FD)
        self.files = (self._requests, self._replies)

    def receive(self) -> tuple[dict[str, Any], bytes]:
        header_bytes, blob_bytes = HEADER.unpack(self._take(HEADER.size))
        header: dict[str, Any] = json.loads(self._take(header_bytes))
        return header, self._take(blob_bytes)

    def send(self, header: dict[str, Any], blobs: bytes = b"") -> None:
        text = json.dumps(header).encode()
        rest = memoryview(HEADER.pack(len(text), len(blobs)) + text + blobs)
        while rest:
            rest = rest[os.write(self._replies, rest) :]

    def _take(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            piece = os.read(self._requests, min(size - len(data), 1 << 20))
            if not piece:
                os._exit(0)
            data += piece
        return bytes(data)
