"""The host's end of an attached container: frames out of Docker's multiplexed stream.

Each piece has eight bytes before it: 1 for standard output or 2 for standard error, three zeros, its length. Source:
the Docker Engine API, "Attach to a container". The worker's frames come on 1; 2 is the first process's alone.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time
from typing import Final

from keyeloop.sandbox.frames import FramePipe, PipeBroken, PipeClosed
from keyeloop.sandbox.running import json_bytes
from keyeloop.sandbox.spec import Limits

_PIECE: Final = struct.Struct("!BxxxI")
_AHEAD_BYTES: Final = 1 << 16
_FRAMES, _WORDS = 1, 2


class AttachedPipe(FramePipe):
    """A :class:`FramePipe` over one connection that carries frames one way, and frames and last words the other."""

    def __init__(self, connection: socket.socket, limits: Limits) -> None:
        """Takes over ``connection``."""
        self._socket = connection
        self._quiet = os.pipe()
        self._raw = bytearray()
        self._words = bytearray()
        self._words_bytes = 1 << 16 | limits.stdout_bytes * 16
        self._hung_up = False
        super().__init__(
            os.dup(connection.fileno()),
            os.dup(connection.fileno()),
            self._quiet[0],
            json_bytes=json_bytes(limits),
            frame_bytes=limits.frame_bytes,
        )

    @property
    def words(self) -> bytes:
        """What came on standard error, bounded."""
        return bytes(self._words)

    def fileno(self) -> int:
        """Readable when the first process has said its last words, or the other side has closed."""
        return self._socket.fileno()

    def ended(self) -> bool:
        """Whether the other side has closed."""
        if self._hung_up:
            return True
        poll = select.poll()
        poll.register(self._socket, select.POLLRDHUP)
        return bool(poll.poll(0))

    def hang_up(self) -> None:
        """Tell the first process to end everything."""
        self._hung_up = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def drain(self, seconds: float) -> None:
        """Read until the end of the stream, at most so long; frames are thrown away."""
        deadline_s = time.monotonic() + seconds
        with contextlib.suppress(PipeClosed, PipeBroken, OSError):
            while (remaining_s := deadline_s - time.monotonic()) > 0:
                if select.select([self._socket], [], [], remaining_s)[0]:
                    self._take(_AHEAD_BYTES)
                    self._buffer.clear()

    def close(self) -> None:
        """Close everything."""
        super().close()
        self._socket.close()
        for end in self._quiet:
            os.close(end)

    def _fill(self, size: int, deadline_s: float) -> None:
        while len(self._buffer) < size:
            self._wait(self._replies_fd, select.POLLIN, deadline_s)
            with contextlib.suppress(BlockingIOError):
                self._take(max(size - len(self._buffer), _AHEAD_BYTES))

    def _take(self, most_bytes: int) -> None:
        """One read, sorted into frames and words. Raises PipeClosed at the end of the stream."""
        try:
            data = self._socket.recv(min(most_bytes, 1 << 20))
        except ConnectionError as error:
            raise PipeClosed(f"the container's connection broke: {error.strerror}") from error
        if not data:
            raise PipeClosed("the container ended")
        self._raw += data
        at = 0
        while len(self._raw) - at >= _PIECE.size:
            kind, length = _PIECE.unpack_from(self._raw, at)
            start = at + _PIECE.size
            part = self._raw[start : start + length]
            if kind == _FRAMES:
                self._buffer += part
            elif kind == _WORDS:
                self._words += part[: self._words_bytes - len(self._words)]
            else:
                raise PipeBroken(f"the Docker daemon sent a piece of kind {kind}")
            at = start + len(part)
            if len(part) < length:  # the rest will come with a header that says so
                at -= _PIECE.size
                _PIECE.pack_into(self._raw, at, kind, length - len(part))
                break
        del self._raw[:at]
