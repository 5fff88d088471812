"""The host's end of the pipe to a worker: framed messages with sizes checked before anything is read or parsed.

A frame is two big-endian 32-bit lengths, a JSON object and raw bytes. The JSON is kept small because parsing multiplies
it; pictures and files travel as the raw part.
"""

from __future__ import annotations

import json
import os
import select
import struct
import time
from typing import Any, Final

from keyeloop.runtime.errors import SandboxError

_LENGTHS: Final = struct.Struct("!II")
_AHEAD_BYTES: Final = 1 << 16
"""Read at once where more has come than is needed yet: most frames are smaller."""


class PipeTimeout(SandboxError):
    """Raised when a frame was not complete in time; reading can go on where it stopped."""


class PipeClosed(SandboxError):
    """Raised when the worker is gone."""


class PipeBroken(SandboxError):
    """Raised when what came down the pipe is not a frame of the protocol."""


class FramePipe:
    """Both directions of the pipe. Owns the descriptors it is given, but not ``exited_fd``."""

    def __init__(self, requests_fd: int, replies_fd: int, exited_fd: int, *, json_bytes: int, frame_bytes: int) -> None:
        """``exited_fd`` becomes readable when the worker is gone, even if a child of its still holds the pipe."""
        self._json_bytes = json_bytes
        self._requests_fd = requests_fd
        self._replies_fd = replies_fd
        self._frame_bytes = frame_bytes
        self._buffer = bytearray()
        for fd in (requests_fd, replies_fd):
            os.set_blocking(fd, False)
        self._polls: dict[int, select.poll] = {}
        for fd, event in ((requests_fd, select.POLLOUT), (replies_fd, select.POLLIN)):
            self._polls[event] = select.poll()
            self._polls[event].register(fd, event)
            self._polls[event].register(exited_fd, select.POLLIN)

    def send_raw(self, data: bytes, deadline_s: float) -> None:
        """Write ``data`` by ``deadline_s`` (monotonic)."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._requests_fd, rest) :]
            except BlockingIOError:
                if not self._wait(self._requests_fd, select.POLLOUT, deadline_s):
                    raise PipeClosed("the sandbox ended") from None
            except OSError as error:
                raise PipeClosed(f"the sandbox no longer reads: {error.strerror}") from error

    def send(self, header: dict[str, Any], blob: bytes, deadline_s: float) -> None:
        """Write one frame by ``deadline_s`` (monotonic)."""
        text = json.dumps(header).encode()
        self.send_raw(_LENGTHS.pack(len(text), len(blob)) + text + blob, deadline_s)

    def receive(self, deadline_s: float) -> tuple[dict[str, Any], bytes]:
        """The next frame, complete by ``deadline_s`` (monotonic)."""
        self._fill(_LENGTHS.size, deadline_s)
        header_bytes, blob_bytes = _LENGTHS.unpack_from(self._buffer)
        if header_bytes > self._json_bytes or header_bytes + blob_bytes > self._frame_bytes:
            raise PipeBroken(f"a frame of {header_bytes} + {blob_bytes} bytes was announced")
        total = _LENGTHS.size + header_bytes + blob_bytes
        self._fill(total, deadline_s)
        start = _LENGTHS.size
        text = bytes(self._buffer[start : start + header_bytes])
        blob = bytes(self._buffer[start + header_bytes : total])
        del self._buffer[:total]
        try:
            header = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise PipeBroken(f"a frame was not JSON: {str(error)[:80]}") from error
        if not isinstance(header, dict):
            raise PipeBroken("a frame was not a JSON object")
        return header, blob

    def close(self) -> None:
        """Close both directions."""
        for fd in (self._requests_fd, self._replies_fd):
            os.close(fd)

    def _fill(self, size: int, deadline_s: float) -> None:
        while len(self._buffer) < size:
            if self._wait(self._replies_fd, select.POLLIN, deadline_s):
                try:
                    piece = os.read(self._replies_fd, min(max(size - len(self._buffer), _AHEAD_BYTES), 1 << 20))
                except BlockingIOError:
                    continue
                if not piece:
                    raise PipeClosed("the sandbox hung up")
                self._buffer += piece
            else:
                raise PipeClosed("the sandbox ended")

    def _wait(self, fd: int, event: int, deadline_s: float) -> bool:
        """Wait until ``fd`` is ready (True) or the worker is gone (False)."""
        remaining_s = deadline_s - time.monotonic()
        if remaining_s <= 0:
            raise PipeTimeout("the sandbox did not answer in time")
        ready = dict(self._polls[event].poll(remaining_s * 1000))
        if not ready:
            raise PipeTimeout("the sandbox did not answer in time")
        return fd in ready
