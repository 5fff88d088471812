"""Results written down, one JSON object a line, each on disk before the next; what is there is not done again."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from keyeloop.runtime.errors import InputError, JournalError

Record = dict[str, Any]
FAILED = ("failed", "interrupted")
"""Statuses of tasks that ended without an answer."""


class ResultFile:
    """The results of a batch by task id: read when opened, appended to after that, by one process at a time.

    A last line that was torn by a kill is dropped. ``again`` are statuses whose lines are dropped too, so that their
    tasks are done again. Raises InputError where the file cannot be used.
    """

    def __init__(self, path: Path, again: Collection[str] = ()) -> None:
        self.path = path
        self._file = _open_alone(path)
        try:
            lines, torn = self._read()
            kept = [(line, record) for line, record in lines if record.get("status") not in again]
            if torn or len(kept) < len(lines):
                self._file = _replace(path, self._file, b"".join(line for line, _ in kept))
            self.records: dict[str, Record] = {str(record["id"]): record for _, record in kept}
        except BaseException:
            self._file.close()
            raise

    def append(self, record: Record) -> None:
        """Write the record of one more task; it is on disk when this returns."""
        try:
            self._file.write(json.dumps(record, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise JournalError(f"results cannot be written to {self.path}: {error.strerror}") from error
        self.records[str(record["id"])] = record

    def close(self) -> None:
        """Let go of the file; idempotent."""
        self._file.close()

    def __enter__(self) -> ResultFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> tuple[list[tuple[bytes, Record]], bool]:
        """Whole lines with what they say, and whether anything behind them has to go."""
        self._file.seek(0)
        lines = self._file.read().splitlines(keepends=True)
        found: list[tuple[bytes, Record]] = []
        torn = False
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            record = _record(line)
            whole = line.endswith(b"\n")
            if record is not None:
                found.append((line if whole else line + b"\n", record))
            elif whole or number < len(lines):
                raise InputError(f"{self.path}:{number} is no result: mend or remove the line, or name another --out")
            torn = torn or not whole
        return found, torn


def _record(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "id" in record and "status" in record else None


def _open_alone(path: Path) -> IO[bytes]:
    """Open for reading and appending, made if need be; no other batch may have it open."""
    if path.exists() and not path.is_file():
        raise InputError(f"results cannot be kept in {path}: it is no regular file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
    except OSError as error:
        raise InputError(f"results cannot be kept in {path}: {error.strerror}") from None
    if _locked(file) and path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
        _sync_folder(path)
        return file
    file.close()
    raise InputError(f"another batch is writing {path}: wait for it, or name another --out")


def _replace(path: Path, old: IO[bytes], data: bytes) -> IO[bytes]:
    """A file that holds ``data`` in the place of ``old``; whoever is killed meanwhile leaves one of the two, whole."""
    beside = path.with_name(f".{path.name}.new")
    try:
        file = beside.open("w+b")
        _locked(file)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        beside.replace(path)
        _sync_folder(path)
    except OSError as error:
        raise InputError(f"results in {path} cannot be mended: {error.strerror}") from None
    old.close()
    return file


def _locked(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sync_folder(path: Path) -> None:
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
