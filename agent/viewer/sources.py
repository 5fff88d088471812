"""The files that a run looked into: given out only while their bytes are those that the run recorded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from keyeloop.runtime.errors import InputError
from keyeloop.runtime.evidence import Source
from keyeloop.runtime.journal.sources import own_path
from keyeloop.runtime.source import hash_file

TYPES = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/mp4",
    ".webm": "video/webm",
    ".mkv": "video/webm",
    ".ogv": "video/ogg",
    ".avi": "video/x-msvideo",
    ".ts": "video/mp2t",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".gif": "image/gif",
}
"""What a browser is told of a file, never a type that it would run; no file with another ending is given out."""


def find_source(source: Source, run: Path, root: Path) -> tuple[Path, str] | None:
    """The file and its type; None where there is none with the recorded sha256.

    A relative path is looked for from the working folder, the run, the folder of runs and the one above. The sha256 is
    what makes it safe: a journal that was made to name some other file of this machine would have to know its content.
    """
    kind = TYPES.get(Path(source.path).suffix.lower())
    if kind is None:
        return None
    for place in _places(source, run, root):
        try:
            if hash_file(place) == source.sha256:
                return place, kind
        except (InputError, OSError):
            continue
    return None


def may_be_found(source: Source, run: Path, root: Path) -> bool:
    """Whether there is some file where the source was, which :func:`find_source` would look into."""
    return Path(source.path).suffix.lower() in TYPES and any(True for _ in _places(source, run, root))


def _places(source: Source, run: Path, root: Path) -> Iterator[Path]:
    recorded = Path(source.path)
    bases = (Path(),) if recorded.is_absolute() else (Path(), run, root, root.parent)
    for place in (own_path(source, run), *(base / recorded for base in bases)):
        with suppress(OSError, ValueError):
            if place.is_file():
                yield place
