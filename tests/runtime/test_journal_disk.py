"""When a record goes to the disk: beside the next request, never in anybody's way, and all of it by its end."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from keyeloop.runtime.clock import SystemClock
from keyeloop.runtime.errors import JournalError
from keyeloop.runtime.events import Event, Noticed, RequestSent, RunEnded, RunStart
from keyeloop.runtime.journal import JOURNAL, Journal, read_journal

REQUEST = RequestSent(turn=1, messages=2, input_tokens=9)
NOTICE = Noticed(turn=1, code="x", text="y")


class Disk:
    """Stands in for the system's call: notes what each one found in the file, and may be held up or fail."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.found: list[list[str]] = []
        self.threads: set[int] = set()
        self.free = threading.Event()
        self.free.set()
        self.errors: list[OSError] = []
        self._fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self)

    def __call__(self, handle: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{handle}"):  # noqa: PTH112  the folder, whose name a link tells
            return
        assert self.free.wait(10)
        self.threads.add(threading.get_ident())
        if self.errors:
            raise self.errors.pop()
        self._fsync(handle)
        lines = (self.path / JOURNAL).read_bytes().splitlines()
        self.found.append([line.split(b'"kind":"')[1].split(b'"')[0].decode() for line in lines])


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(tmp_path, monkeypatch)


def write(journal: Journal, *events: Event) -> None:
    for event in events:
        journal.append(event)


START = RunStart(run_id="r", question="?", model="m")
END = RunEnded(status="answered", answer="4")


def test_all_of_it_is_on_disk_when_it_is_closed(disk: Disk, tmp_path: Path) -> None:
    with Journal.create(tmp_path, SystemClock()) as journal:
        write(journal, START, REQUEST, NOTICE, REQUEST, END)
    assert disk.found[-1] == ["run_start", "request", "notice", "request", "run_end"]
    assert threading.get_ident() not in disk.threads, "nobody waits for the disk but its own thread"


def test_a_slow_disk_holds_up_nothing_but_the_end(disk: Disk, tmp_path: Path) -> None:
    disk.free.clear()
    journal = Journal.create(tmp_path, SystemClock())
    steps: list[Event] = [REQUEST, NOTICE] * 50
    write(journal, START, *steps, END)
    assert len(list(read_journal(tmp_path))) == 102, "written all the same"
    assert not disk.found
    closing = threading.Thread(target=journal.close)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive()
    disk.free.set()
    closing.join(10)
    assert len(disk.found) == 2 and len(disk.found[-1]) == 102, "what waited was taken along"


def test_a_step_goes_to_disk_with_the_next_request(disk: Disk, tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, SystemClock())
    write(journal, START)
    assert journal._synced is not None
    journal._synced.result(10)
    write(journal, NOTICE)
    assert len(disk.found) == 1
    write(journal, REQUEST)
    journal._synced.result(10)
    assert disk.found == [["run_start"], ["run_start", "notice", "request"]]
    journal.close()


def test_what_the_disk_did_not_take_is_told_once(disk: Disk, tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, SystemClock())
    disk.errors.append(OSError(28, "No space left on device"))
    write(journal, START)
    assert journal._synced is not None
    journal._synced.exception(10)
    with pytest.raises(JournalError, match=r"journal\.jsonl could not be written: No space left on device"):
        write(journal, NOTICE)
    write(journal, END)
    journal.close()
    assert [event.kind for event in read_journal(tmp_path)] == ["run_start", "run_end"]
    disk.errors.append(OSError(5, "Input/output error"))
    with pytest.raises(JournalError, match="Input/output error"), Journal.reopen(tmp_path, SystemClock()) as again:
        write(again, START)
    again.close()
