"""What code prints: caught at the descriptors, so that C code and child processes are heard too."""

from __future__ import annotations

import fcntl
import io
import os
import sys
from typing import Any

from .pipe import PRIVATE_FD


class Capture:
    """What goes to descriptors 1 and 2, kept in files without a name and cleared before each execution."""

    def __init__(self, inherited: list[int]) -> None:
        sources = inherited or [os.memfd_create("stdout"), os.memfd_create("stderr")]
        sources = [os.open("/dev/null", os.O_RDONLY), *sources]
        self.files = [fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, PRIVATE_FD) for source in sources]
        self._outputs = self.files[1:]
        self._streams: tuple[Any, ...] = ()
        for file in self._outputs:
            fcntl.fcntl(file, fcntl.F_SETFL, fcntl.fcntl(file, fcntl.F_GETFL) | os.O_APPEND)
        self.restore()

    def restore(self) -> None:
        """Put the three standard streams back, whatever code did to them, and empty the capture."""
        for target, file in enumerate(self.files):
            os.dup2(file, target)
        if not self._ours():
            self._streams = _open_streams()
            sys.stdin, sys.stdout, sys.stderr = self._streams
        self._empty()  # last: streams of before, just dropped, may have had something left to write

    def read(self, limit_bytes: int) -> tuple[list[str], bool]:
        """Take both outputs, at most ``limit_bytes`` each, and whether the middle of one was left out."""
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                self._streams = ()  # what it still holds must not come out in a later execution
        texts, cut = [], False
        for file in self._outputs:
            size = os.fstat(file).st_size
            if size <= limit_bytes:
                data = os.pread(file, size, 0) if size else b""
            else:
                half, cut = limit_bytes // 2, True
                left_out = f"\n... {size - 2 * half} bytes left out ...\n".encode()
                data = os.pread(file, half, 0) + left_out + os.pread(file, half, size - half)
            texts.append(data.decode("utf-8", "replace"))
        self._empty()  # a worker that is killed before its next execution must not leave this as the output of that
        return texts, cut

    def _empty(self) -> None:
        for file in self._outputs:
            if os.fstat(file).st_size:
                os.ftruncate(file, 0)

    def _ours(self) -> bool:
        """Whether the streams are still those of the execution before, and open."""
        if not self._streams:
            return False
        try:
            found = zip(self._streams, (sys.stdin, sys.stdout, sys.stderr), strict=True)
            return all(ours is now and not now.closed for ours, now in found)
        except Exception:  # one was detached, or deleted from sys
            return False


def _open_streams() -> tuple[Any, Any, Any]:
    stdin = io.TextIOWrapper(io.FileIO(0, closefd=False), encoding="utf-8")
    stdout, stderr = (
        io.TextIOWrapper(
            io.BufferedWriter(io.FileIO(target, "w", closefd=False)),
            encoding="utf-8",
            errors="backslashreplace",
            line_buffering=True,
        )
        for target in (1, 2)
    )
    return stdin, stdout, stderr
