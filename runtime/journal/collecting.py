"""What runs left that nobody needs: pictures of deleted runs, drafts, folders that never became runs."""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from keyeloop.runtime.journal.layout import JOURNAL, MEDIA, SHARED_MEDIA, is_run
from keyeloop.runtime.journal.pictures import pictures_of
from keyeloop.runtime.journal.reading import salvage

YOUNG_S = 3600.0
"""What was touched more lately than this may belong to a run that is just beginning, and stays."""


@dataclass(frozen=True)
class Garbage:
    """A file that no run needs."""

    path: Path
    size_bytes: int
    why: str


def find_garbage(runs: Path, *, now_s: Callable[[], float] = time.time) -> list[Garbage]:
    """Files below ``runs`` that no run needs; nothing is removed. Runs that are going on are left alone."""
    young_s = now_s() - YOUNG_S
    found: list[Garbage] = []
    for folder in sorted(path for path in runs.iterdir() if path.is_dir()) if runs.is_dir() else ():
        if folder.name == SHARED_MEDIA:
            continue
        if is_run(folder):
            found += _of_run(folder)
        elif (folder / MEDIA).is_dir() and folder.stat().st_mtime < young_s:
            found += [_garbage(path, "its run never began") for path in _files(folder / MEDIA)]
    gone = {garbage.path for garbage in found}
    found += _of_shared(runs / SHARED_MEDIA, gone)
    drafts = [path for path in runs.rglob(".*-*") if path.name.startswith((".draft-", ".journal-")) and path.is_file()]
    found += [_garbage(path, "an unfinished file") for path in drafts if path.stat().st_mtime < young_s]
    return found


def remove_garbage(garbage: list[Garbage]) -> int:
    """Remove what :func:`find_garbage` found, and folders that are empty then; bytes that the disk got back."""
    freed = 0
    for one in garbage:
        try:
            freed += one.size_bytes if one.path.stat().st_nlink == 1 else 0
            one.path.unlink()
        except FileNotFoundError:
            continue
    for folder in sorted({path for one in garbage for path in list(one.path.parents)[:3]}, key=str, reverse=True):
        if folder.name == MEDIA or folder.parent.name in (MEDIA, SHARED_MEDIA) or _never_began(folder):
            _remove_empty(folder)
    return freed


def discard(folder: Path) -> None:
    """Remove a run's folder before anything was recorded there, and the shared pictures that it alone holds."""
    shared = folder.parent / SHARED_MEDIA
    alone = [shared / path.parent.name / path.name for path in _files(folder / MEDIA) if path.stat().st_nlink == 2]
    shutil.rmtree(folder, ignore_errors=True)
    for path in alone:
        path.unlink(missing_ok=True)
    for place in (*{path.parent for path in alone}, shared):
        _remove_empty(place)


def _of_run(folder: Path) -> Iterator[Garbage]:
    """Pictures of a run that its record does not speak of; none where the record is damaged or is being written."""
    with (folder / JOURNAL).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        except OSError:
            pass  # a file system without locks
        events, damage = salvage(folder)
        if any(not one.torn for one in damage):
            return
        needed = pictures_of(events)
        for path in _files(folder / MEDIA):
            if path.name not in needed and not path.name.startswith("."):
                yield _garbage(path, "its run does not speak of it")


def _of_shared(shared: Path, gone: set[Path]) -> Iterator[Garbage]:
    """Pictures that only the shared folder holds."""
    links: dict[str, int] = {}
    for path in gone:
        links[path.name] = links.get(path.name, 0) + 1
    for path in _files(shared):
        if path.name.startswith("."):
            continue
        if path.stat().st_nlink - links.get(path.name, 0) <= 1:
            yield _garbage(path, "no run holds it")


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file()) if folder.is_dir() else iter(())


def _garbage(path: Path, why: str) -> Garbage:
    return Garbage(path, path.stat().st_size, why)


def _never_began(folder: Path) -> bool:
    return folder.is_dir() and not is_run(folder) and not any(path.is_file() for path in folder.rglob("*"))


def _remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return
