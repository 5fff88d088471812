"""Source files that lie in a run's own folder, under their sha256: put there when a run is unpacked with them."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from keyeloop.runtime.errors import InputError
from keyeloop.runtime.evidence import Source
from keyeloop.runtime.source import hash_file

SOURCES = "sources"
"""Folder of a run."""
_ENDING = re.compile(r"\.[a-z0-9]{1,8}")


def own_name(source: Source) -> str:
    """What the file is called there: its sha256, with the ending that tells players what it is."""
    ending = Path(source.path).suffix.lower()
    return source.sha256 + (ending if _ENDING.fullmatch(ending) else "")


def own_path(source: Source, folder: Path) -> Path:
    """Where the run in ``folder`` would have the file; it need not be there."""
    return folder / SOURCES / own_name(source)


def located(sources: Iterable[Source], folder: Path) -> dict[str, Source]:
    """The sources of the run in ``folder`` by name, with the path of the run's own file where it has one."""
    found = {}
    for source in sources:
        own = own_path(source, folder)
        found[source.name] = replace(source, path=str(own)) if own.is_file() else source
    return found


def find_same(source: Source, folder: Path) -> Path:
    """The file with the recorded bytes: the run's own, or the one that it looked at; InputError where there is none.

    A relative path is looked for from the working folder, the run, the folder of runs and the one above.
    """
    for place in _places(source, folder):
        with suppress(InputError, OSError):
            if hash_file(place) == source.sha256:
                return place
    raise InputError(
        f"{source.name} cannot be packed: {source.path} is gone or has changed since the run; put it back, or pack the "
        "run without its sources"
    )


def changed_own(folder: Path) -> Iterator[str]:
    """What is wrong with the run's own sources: files whose bytes are not those that their names promise."""
    for path in sorted((folder / SOURCES).iterdir()) if (folder / SOURCES).is_dir() else ():
        try:
            if hash_file(path) != path.name.partition(".")[0]:
                yield f"{path} is damaged: its bytes do not match its name"
        except InputError as error:
            yield str(error)


def link_own(origin: Path, folder: Path) -> None:
    """Give the run in ``folder`` the own sources of the one in ``origin``: links, or copies where there can be none."""
    for path in sorted((origin / SOURCES).iterdir()) if (origin / SOURCES).is_dir() else ():
        there = folder / SOURCES / path.name
        there.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, there)
        except OSError:
            shutil.copyfile(path, there)


def _places(source: Source, folder: Path) -> Iterator[Path]:
    yield own_path(source, folder)
    runs = folder.absolute().parent
    for base in (Path(), folder, runs, runs.parent):
        yield base / source.path
