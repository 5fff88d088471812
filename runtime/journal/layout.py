"""Where a run's record lies: ``journal.jsonl``, then ``journal.1.jsonl``, ...; pictures in ``media``, shared by links.

The folder of runs keeps every picture once, under ``.media/ab/abcdef...``; a run's own ``media`` holds links to those
it uses. So a run stays whole when its folder is copied or the others are deleted, and a picture that many runs saw
takes its bytes once.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path

from keyeloop.runtime.media import MediaStore

JOURNAL = "journal.jsonl"
MEDIA = "media"
SHARED_MEDIA = ".media"
"""Below the folder of runs."""
CHUNK_BYTES = 8 << 20
"""A line that would make a file larger than this begins the next one."""


def chunk_path(folder: Path, number: int) -> Path:
    """File ``number`` of a run's record; 0 is the first."""
    return folder / (JOURNAL if number == 0 else f"journal.{number}.jsonl")


def chunk_paths(folder: Path) -> list[Path]:
    """The files of a run's record that exist, in order; at least the first, which may be missing."""
    paths = [chunk_path(folder, 0)]
    for number in count(1):
        path = chunk_path(folder, number)
        if not path.exists():
            return paths
        paths.append(path)
    raise AssertionError("numbers do not end")


def run_media(folder: Path) -> MediaStore:
    """The pictures of the run in ``folder``, shared with the other runs beside it."""
    return MediaStore(folder / MEDIA, shared=folder.absolute().parent / SHARED_MEDIA)


def is_run(folder: Path) -> bool:
    """Whether ``folder`` holds a run's record."""
    return (folder / JOURNAL).is_file()
