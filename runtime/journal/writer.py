"""The record of a run: append-only lines of JSON, each written at once, a step on disk while the next is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from keyeloop.runtime.clock import Clock
from keyeloop.runtime.errors import JournalError
from keyeloop.runtime.events import FORMAT, Event, QuestionAsked, RequestSent, RunEnded, RunStart, event_to_line
from keyeloop.runtime.journal.chunks import Chunks, lock
from keyeloop.runtime.journal.concealing import Concealer, environment_secrets
from keyeloop.runtime.journal.layout import JOURNAL, run_media
from keyeloop.runtime.journal.lines import sealed
from keyeloop.runtime.journal.migration import format_of
from keyeloop.runtime.journal.reading import read_strictly
from keyeloop.runtime.journal.rewriting import rewrite
from keyeloop.runtime.journal.totals import Totals

SYNCED = (RunStart, QuestionAsked, RequestSent, RunEnded)
"""Events with which all that was written goes to the disk."""


class Journal:
    """Writes ``RUN/journal.jsonl``; pictures go to ``RUN/media``. A killed process loses at most the line in flight.

    The file is locked while it is open: one process at a time writes a run.
    """

    def __init__(self, folder: Path, clock: Clock, chunks: Chunks, next_seq: int, totals: Totals) -> None:
        self.folder = folder
        self.media = run_media(folder)
        self._clock, self._chunks, self._next_seq, self._totals = clock, chunks, next_seq, totals
        self._concealer = Concealer(environment_secrets())
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
        lock(file, folder)
        return cls(folder, clock, Chunks(folder, file, new=True), 0, Totals())

    @classmethod
    def reopen(cls, folder: Path, clock: Clock) -> Journal:
        """Go on with a run's record: a torn last line is dropped, numbering continues.

        One of an older format is written anew in the present one. Raises JournalError where there is none, it cannot be
        read or written, or another process is writing it.
        """
        try:
            file = (folder / JOURNAL).open("r+b", buffering=0)
        except OSError as error:
            raise JournalError(f"no run in {folder} that can be gone on with: {error.strerror}") from None
        try:
            lock(file, folder)
            events, totals, chunk, end = 0, Totals(), 0, 0
            for written in read_strictly(folder):
                totals.add(written.event)
                events, chunk, end = written.event.seq + 1, written.chunk, written.end
            if format_of(folder) < FORMAT:
                file, end = rewrite(folder, file, [written.event for written in read_strictly(folder)])
            return cls(folder, clock, Chunks(folder, file, chunk, end), events, totals)
        except BaseException:
            file.close()
            raise

    def conceal(self, secrets: Iterable[str]) -> None:
        """Never write these values; those of the environment's keys and passwords never are."""
        self._concealer.add(secrets)

    def append(self, event: Event) -> Event:
        """Number and date the event, write it, and return it so: a process that is killed loses no event.

        Against a power cut the disk is waited for in a thread, which holds up no other run: a question's beginning, and
        each step when the next request goes out, so that the step in flight is all there is to lose. All of it is on
        disk when :meth:`close` returns.

        Raises JournalError where it cannot be written; what was written of it is taken back, so that the next line, if
        there is room for it, begins where it should.
        """
        if self._chunks.closed:
            raise JournalError(f"the record of {self.folder} is closed")
        self._check_synced()
        stamped = event.model_copy(update={"seq": self._next_seq, "time_s": self._clock.now()})
        before = self._totals.now
        so_far = self._totals.add(stamped)
        if isinstance(stamped, RunEnded):
            stamped = stamped.model_copy(update={"so_far": so_far})
        try:
            self._chunks.write(sealed(self._concealer.conceal(event_to_line(stamped))))
            self._sync(event)
        except OSError as error:
            self._totals.now = before
            raise JournalError(f"{self._chunks.path} could not be written: {error.strerror}") from error
        self._next_seq += 1
        return stamped

    def close(self) -> None:
        """Wait until all of it is on disk, and close the file; idempotent.

        Raises JournalError where the disk did not take it.
        """
        if self._syncing is not None:
            self._syncing.shutdown()
            self._syncing = None
        self._chunks.close()
        self._check_synced()

    def _sync(self, event: Event) -> None:
        waits = self._synced is not None and not self._synced.running() and not self._synced.done()
        if waits or not isinstance(event, SYNCED):
            return  # the one that waits will take this along
        if self._syncing is None:
            self._syncing = ThreadPoolExecutor(1, thread_name_prefix="keyeloop-journal")
        self._synced = self._syncing.submit(self._chunks.to_disk)

    def _check_synced(self) -> None:
        """Raise JournalError where the disk did not take what was written before."""
        error = self._synced.exception() if self._synced is not None and self._synced.done() else None
        if isinstance(error, OSError):
            self._synced = None  # told once: what comes next may find room
            raise JournalError(f"{self._chunks.path} could not be written: {error.strerror}") from error

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
