"""The record of a run: append-only lines of JSON, each written at once, a step on disk while the next is asked for."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from keyeloop.runtime.clock import Clock
from keyeloop.runtime.errors import JournalError
from keyeloop.runtime.events import (
    Event,
    QuestionAsked,
    RequestSent,
    RunEnded,
    RunStart,
    event_from_line,
    event_to_line,
)
from keyeloop.runtime.media import MediaStore

JOURNAL = "journal.jsonl"
MEDIA = "media"
SYNCED = (RunStart, QuestionAsked, RequestSent, RunEnded)
"""Events with which all that was written goes to the disk."""
UNSTEADY = frozenset({"time_s", "duration_s", "first_token_s", "run_id"})
"""Fields that may differ between two equal runs."""


class Journal:
    """Writes ``RUN/journal.jsonl``; pictures go to ``RUN/media``. A killed process loses at most the line in flight.

    The file is locked while it is open: one process at a time writes a run.
    """

    def __init__(self, folder: Path, clock: Clock, file: FileIO, next_seq: int, new: bool = False) -> None:
        self.folder = folder
        self.media = MediaStore(folder / MEDIA)
        self._clock, self._file, self._next_seq = clock, file, next_seq
        self._new = new
        """The folder does not know the file for sure yet."""
        self._syncing: ThreadPoolExecutor | None = None
        self._synced: Future[None] | None = None

    @classmethod
    def create(cls, folder: Path, clock: Clock) -> Journal:
        """Begin the record of a new run in ``folder``, which is made; JournalError when it already holds one."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = (folder / JOURNAL).open("xb", buffering=0)
        except FileExistsError:
            raise JournalError(f"{folder} already holds a run: choose another folder") from None
        except OSError as error:
            raise JournalError(
                f"a run cannot be recorded in {folder} ({error.strerror}): name another folder for runs"
            ) from error
        _lock(file, folder)
        return cls(folder, clock, file, 0, new=True)

    @classmethod
    def reopen(cls, folder: Path, clock: Clock) -> Journal:
        """Go on with a run's record: a torn last line is dropped, numbering continues.

        Raises JournalError where there is none, it cannot be read or written, or another process is writing it.
        """
        try:
            file = (folder / JOURNAL).open("r+b", buffering=0)
        except OSError as error:
            raise JournalError(f"no run in {folder} that can be gone on with: {error.strerror}") from None
        try:
            _lock(file, folder)
            sound, events = 0, 0
            for event, end in _scan(folder):
                sound, events = end, event.seq + 1
            file.truncate(sound)
            file.seek(sound)
        except BaseException:
            file.close()
            raise
        return cls(folder, clock, file, events)

    def append(self, event: Event) -> Event:
        """Number and date the event, write it, and return it so: a process that is killed loses no event.

        Against a power cut the disk is waited for in a thread, which holds up no other run: a question's beginning, and
        each step when the next request goes out, so that the step in flight is all there is to lose. All of it is on
        disk when :meth:`close` returns.

        Raises JournalError where it cannot be written; what was written of it is taken back, so that the next line, if
        there is room for it, begins where it should.
        """
        if self._file.closed:
            raise JournalError(f"the record of {self.folder} is closed")
        self._check_synced()
        stamped = event.model_copy(update={"seq": self._next_seq, "time_s": self._clock.now()})
        begin = self._file.tell()
        try:
            rest = memoryview(event_to_line(stamped) + b"\n")
            while rest:
                rest = rest[self._file.write(rest) :]
            self._sync(event)
        except OSError as error:
            with suppress(OSError):
                self._file.seek(begin)
                self._file.truncate()
            raise JournalError(f"{self.folder / JOURNAL} could not be written: {error.strerror}") from error
        self._next_seq += 1
        return stamped

    def close(self) -> None:
        """Wait until all of it is on disk, and close the file; idempotent.

        Raises JournalError where the disk did not take it.
        """
        if self._syncing is not None:
            self._syncing.shutdown()
            self._syncing = None
        self._file.close()
        self._check_synced()

    def _sync(self, event: Event) -> None:
        waits = self._synced is not None and not self._synced.running() and not self._synced.done()
        if waits or not isinstance(event, SYNCED):
            return  # the one that waits will take this along
        if self._syncing is None:
            self._syncing = ThreadPoolExecutor(1, thread_name_prefix="keyeloop-journal")
        self._synced = self._syncing.submit(self._to_disk)

    def _to_disk(self) -> None:
        os.fsync(self._file.fileno())
        if self._new:
            _sync_folder(self.folder)
            self._new = False

    def _check_synced(self) -> None:
        """Raise JournalError where the disk did not take what was written before."""
        error = self._synced.exception() if self._synced is not None and self._synced.done() else None
        if isinstance(error, OSError):
            self._synced = None  # told once: what comes next may find room
            raise JournalError(f"{self.folder / JOURNAL} could not be written: {error.strerror}") from error

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_journal(folder: Path) -> Iterator[Event]:
    """Events of the run in ``folder``, in order; a torn last line is passed over.

    Raises JournalError when there is no run, or when a line before the last cannot be read.
    """
    return (event for event, _ in _scan(folder))


def steady_lines(folder: Path) -> list[str]:
    """The journal's lines with times, durations and ids blanked: equal for two equal runs."""
    return [
        json.dumps(_steady(json.loads(event_to_line(event))), ensure_ascii=False, sort_keys=True)
        for event in read_journal(folder)
    ]


def _scan(folder: Path) -> Iterator[tuple[Event, int]]:
    """Each event with the offset just behind its line."""
    path = folder / JOURNAL
    try:
        file = path.open("rb")
    except OSError as error:
        raise JournalError(f"no run in {folder}: {path} cannot be opened ({error.strerror})") from None
    with file:
        end, number, torn = 0, 0, ""
        for line in file:
            if torn:
                raise JournalError(f"{path} is damaged: {torn}")
            end, number = end + len(line), number + 1
            if not line.endswith(b"\n"):
                return
            try:
                event = event_from_line(line)
            except ValidationError as error:
                torn = f"line {number} cannot be read ({error.errors(include_url=False)[0]['msg']})"
                continue
            yield event, end


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: None if key in UNSTEADY else _steady(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_steady(item) for item in value]
    return value


def _lock(file: FileIO, folder: Path) -> None:
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
