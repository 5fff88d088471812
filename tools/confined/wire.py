"""The framed protocol between the tools and the confined child, over one Unix stream socket.

A frame is an 8-byte head (lengths of header and payload, big-endian unsigned 32-bit each), a JSON object, raw bytes.
A request also carries one file descriptor: the media file, already open. Neither side trusts a length it was sent.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from typing import Any

HEAD = struct.Struct(">II")
MAX_HEADER_BYTES = 1 << 20
MAX_PAYLOAD_BYTES = 1 << 28


class WireClosed(Exception):
    """Raised when the other side went away in the middle of a frame or before one."""


class WireBroken(Exception):
    """Raised when the other side sent something that is not a frame of this protocol."""


def send(
    channel: socket.socket, header: dict[str, Any], payload: bytes | memoryview = b"", fd: int | None = None
) -> None:
    """Send one frame; with ``fd``, a duplicate of that descriptor travels with its first bytes.

    Raises WireClosed when the other side is gone, TimeoutError when the channel's time-out passes.
    """
    text = json.dumps(header, separators=(",", ":")).encode()
    head = HEAD.pack(len(text), len(payload)) + text
    try:
        if fd is None:
            channel.sendall(head)
        else:
            sent = socket.send_fds(channel, [head], [fd])
            channel.sendall(head[sent:])
        if payload:
            channel.sendall(payload)
    except TimeoutError:
        raise
    except OSError as error:
        raise WireClosed(str(error)) from None


def receive(channel: socket.socket) -> tuple[dict[str, Any], bytes, int | None]:
    """Receive one frame: header, payload, and the descriptor that came with it, which the caller must close.

    Raises WireClosed at the end of the stream, WireBroken for a frame that breaks the protocol, TimeoutError.
    """
    fd: int | None = None
    try:
        first, fds, flags, _ = socket.recv_fds(channel, HEAD.size, 1)
        fd = fds[0] if fds else None
        if not first:
            raise WireClosed("the channel was closed")
        head = first + _read(channel, HEAD.size - len(first))
        header_bytes, payload_bytes = HEAD.unpack(head)
        if flags & socket.MSG_CTRUNC or header_bytes > MAX_HEADER_BYTES or payload_bytes > MAX_PAYLOAD_BYTES:
            raise WireBroken(f"a frame of {header_bytes} + {payload_bytes} bytes")
        header = _decode(_read(channel, header_bytes))
        return header, _read(channel, payload_bytes), fd
    except BaseException as error:
        if fd is not None:
            os.close(fd)
        if isinstance(error, OSError) and not isinstance(error, TimeoutError):
            raise WireClosed(str(error)) from None
        raise


def _decode(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        raise WireBroken("a header that is not JSON") from None
    if not isinstance(header, dict):
        raise WireBroken("a header that is not an object")
    return header


def _read(channel: socket.socket, count: int) -> bytes:
    if count == 0:
        return b""
    data = bytearray(count)
    view, have = memoryview(data), 0
    while have < count:
        got = channel.recv_into(view[have:])
        if got == 0:
            raise WireClosed("the channel was closed inside a frame")
        have += got
    return bytes(data)
