"""The files that lines are appended to: one after another, each begun when the one before is full."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from io import FileIO
from pathlib import Path

from keyeloop.runtime.errors import JournalError
from keyeloop.runtime.journal.layout import CHUNK_BYTES, chunk_path


class Chunks:
    """The open end of a record. The first file stays open and locked, so that one process at a time writes a run."""

    def __init__(self, folder: Path, first: FileIO, number: int = 0, size: int = 0, new: bool = False) -> None:
        """``first`` is the locked first file; lines go on in file ``number`` behind its byte ``size``."""
        self._folder, self._first, self._number = folder, first, number
        self._file = first if number == 0 else chunk_path(folder, number).open("r+b", buffering=0)
        self._file.truncate(size)
        self._file.seek(size)
        self._size = size
        self._full: list[FileIO] = []
        """Files that are complete, and perhaps not on disk yet."""
        self._folder_knows = not new

    @property
    def path(self) -> Path:
        """The file that is being written."""
        return chunk_path(self._folder, self._number)

    @property
    def closed(self) -> bool:
        return self._first.closed

    def write(self, line: bytes) -> None:
        """Append a line. Raises OSError, after taking back what was written of it."""
        if self._size and self._size + len(line) > CHUNK_BYTES:
            self._begin_next()
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            with suppress(OSError):
                self._file.seek(self._size)
                self._file.truncate()
            raise
        self._size += len(line)

    def to_disk(self) -> None:
        """Wait until all that was written is on disk; called by one thread at a time. Raises OSError."""
        full, self._full = self._full, []
        for file in full:
            os.fsync(file.fileno())
            if file is not self._first:
                file.close()
        os.fsync(self._file.fileno())
        if not self._folder_knows:
            self._folder_knows = True
            _sync_folder(self._folder)

    def close(self) -> None:
        """Close every file; idempotent."""
        for file in (*self._full, self._file, self._first):
            file.close()

    def _begin_next(self) -> None:
        following = chunk_path(self._folder, self._number + 1).open("xb", buffering=0)
        self._full.append(self._file)
        self._file, self._number, self._size, self._folder_knows = following, self._number + 1, 0, False


def lock(file: FileIO, folder: Path) -> None:
    """Hold a run's first file. JournalError where another process does."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise JournalError(f"the run in {folder} is still going on: wait until its question has ended") from None
    except OSError:
        return  # a file system without locks


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
