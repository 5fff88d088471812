"""Whether a run's record and its pictures are whole: every line, every checksum, every picture's bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from keyeloop.runtime.errors import JournalError
from keyeloop.runtime.events import RunStart
from keyeloop.runtime.journal.layout import run_media
from keyeloop.runtime.journal.pictures import pictures_of
from keyeloop.runtime.journal.reading import salvage, without_start
from keyeloop.runtime.journal.sources import changed_own


@dataclass(frozen=True)
class RunCheck:
    """What was found in one run."""

    folder: Path
    events: int
    """That can be read."""
    pictures: int
    """That they need."""
    problems: tuple[str, ...]
    """Each names its file and what is wrong with it."""
    torn: bool = False
    """A last line was cut off by a kill: nothing that had been recorded is lost, and going on drops it."""

    @property
    def sound(self) -> bool:
        return not self.problems


def check_run(folder: Path) -> RunCheck:
    """Read all of the run in ``folder``, its pictures too; nothing is changed, and only the missing record raises.

    Raises JournalError where there is no run.
    """
    events, damage = salvage(folder)
    problems = [str(found) for found in damage if not found.torn]
    if not events or not isinstance(events[0], RunStart):
        problems.append(without_start(folder, events))
    pictures = pictures_of(events)
    problems += _lost_pictures(folder, pictures)
    problems += changed_own(folder)
    return RunCheck(
        folder, len(events), len(pictures), tuple(problems), torn=bool(events) and any(found.torn for found in damage)
    )


def _lost_pictures(folder: Path, pictures: dict[str, int | None]) -> Iterator[str]:
    media = run_media(folder)
    for sha256, size_bytes in pictures.items():
        try:
            data = media.read(sha256)
        except (JournalError, OSError) as error:
            yield str(error)
            continue
        if size_bytes is not None and len(data) != size_bytes:
            yield f"{media.path(sha256)} has {len(data)} bytes, the record says {size_bytes}"
