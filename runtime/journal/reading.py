"""A record read back: every event in order, what is damaged named, older forms brought up to the present one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from keyeloop.runtime.errors import JournalError
from keyeloop.runtime.events import Event, event_from_line, event_from_object, event_to_line
from keyeloop.runtime.journal.layout import JOURNAL, chunk_paths
from keyeloop.runtime.journal.lines import Damage, parse_line, seal_problem
from keyeloop.runtime.journal.migration import Migration

UNSTEADY = frozenset({"time_s", "duration_s", "first_token_s", "run_id"})
"""Fields that may differ between two equal runs."""


class Written(NamedTuple):
    """An event, and where its line ends."""

    event: Event
    chunk: int
    end: int
    """Offset just behind its line."""


def read_journal(folder: Path) -> Iterator[Event]:
    """Events of the run in ``folder``, in order; a torn last line is passed over.

    Raises JournalError when there is no run, when a line before the last cannot be read or lacks, and for a record
    that a newer version wrote.
    """
    return (written.event for written in read_strictly(folder))


def without_start(folder: Path, events: Sequence[Event]) -> str:
    """What to tell of a record that does not begin as one does."""
    if events:
        return f"the journal in {folder} does not begin with run_start: its first line is lost"
    return (
        f"no whole line is recorded in {folder / JOURNAL}: its process was killed before the first was written, so "
        "there is nothing to read or to go on with; run the task again, and delete that folder"
    )


def salvage(folder: Path) -> tuple[list[Event], list[Damage]]:
    """All that can be read of the run in ``folder``, and what cannot. JournalError where there is no run at all."""
    events: list[Event] = []
    damage: list[Damage] = []
    for found in scan(folder):
        if isinstance(found, Damage):
            damage.append(found)
        else:
            events.append(found.event)
    return events, damage


def read_strictly(folder: Path) -> Iterator[Written]:
    """Events with their places; JournalError for any damage but a torn last line."""
    for found in scan(folder):
        if isinstance(found, Written):
            yield found
        elif not found.torn:
            raise JournalError(f"{found}; keyeloop journal verify {folder} tells all of it")


def scan(folder: Path) -> Iterator[Written | Damage]:
    """Every line of a record: its event, or what is wrong with it. JournalError where there is no run at all."""
    paths = chunk_paths(folder)
    migration, due = Migration(folder), 0
    for number, path in enumerate(paths):
        try:
            file = path.open("rb")
        except OSError as error:
            raise JournalError(f"no run in {folder}: {path} cannot be opened ({error.strerror})") from None
        with file:
            for found in _chunk(file, path, number, migration, last=number == len(paths) - 1):
                if isinstance(found, Written):
                    if found.event.seq != due:
                        yield Damage(path, 0, _gap(due, found.event.seq))
                    due = found.event.seq + 1
                yield found


def steady(event: Event) -> Any:
    """An event as JSON with times, durations and ids blanked: equal for the same events of two equal runs."""
    return _steady(json.loads(event_to_line(event)))


def steady_lines(folder: Path) -> list[str]:
    """The record's events with times, durations and ids blanked: equal for two equal runs."""
    return [json.dumps(steady(event), ensure_ascii=False, sort_keys=True) for event in read_journal(folder)]


def _chunk(
    lines: Iterable[bytes], path: Path, number: int, migration: Migration, *, last: bool
) -> Iterator[Written | Damage]:
    """The lines of one file. What is wrong with the last line of the last file counts as torn."""
    end, held = 0, None
    for count, line in enumerate(lines, 1):
        if held is not None:
            yield held
            held = None
        end += len(line)
        try:
            if not line.endswith(b"\n"):
                raise ValueError("is cut off")
            event = _event(line[:-1], migration)
        except ValidationError as error:
            held = Damage(path, count, f"cannot be read ({error.errors(include_url=False)[0]['msg']})", torn=last)
        except ValueError as error:
            held = Damage(path, count, str(error), torn=last)
        else:
            yield Written(event, number, end)
        if held is not None and held.torn:
            held = Damage(path, count, held.problem)
    if held is not None:
        yield Damage(path, held.line, held.problem, torn=last)


def _event(line: bytes, migration: Migration) -> Event:
    """The event of a line without its end; ValueError says what is wrong with it."""
    if not migration.needless:
        return event_from_object(migration.present(parse_line(line)))
    problem = seal_problem(line)
    if problem:
        raise ValueError(problem)
    return event_from_line(line)


def _gap(due: int, found: int) -> str:
    if found < due:
        return f"event {found} stands where event {due} was due"
    lost = f"event {due} is" if found == due + 1 else f"events {due} to {found - 1} are"
    return f"{lost} missing"


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: None if key in UNSTEADY else _steady(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_steady(item) for item in value]
    return value
