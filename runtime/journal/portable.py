"""A run as one file that can be sent, and back: a plain zip of its record, its pictures and, if asked, its sources."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import zipfile
from pathlib import Path

from keyeloop.runtime.errors import InputError, JournalError
from keyeloop.runtime.events import FORMAT, RunStart, event_to_line
from keyeloop.runtime.journal.layout import JOURNAL, MEDIA, is_run, run_media
from keyeloop.runtime.journal.lines import sealed
from keyeloop.runtime.journal.pictures import pictures_of
from keyeloop.runtime.journal.reading import read_journal, without_start
from keyeloop.runtime.journal.sources import SOURCES, find_same, own_name

ABOUT = "keyeloop-run.json"
SUFFIX = ".keyeloop"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SOURCE = re.compile(rf"{SOURCES}/([0-9a-f]{{64}})(\.[a-z0-9]{{1,8}})?")
_PICTURE = re.compile(rf"{MEDIA}/([0-9a-f]{{2}})/([0-9a-f]{{64}})")
_EARLIEST = (1980, 1, 1, 0, 0, 0)
_PIECE_BYTES = 1 << 20


def pack(folder: Path, file: Path, *, sources: bool = False) -> int:
    """Write the run in ``folder`` to ``file``; its bytes. The same run gives the same bytes.

    The record is written in the present format, in one piece. With ``sources`` the videos and pictures that it looked
    into are packed too; else they stay where they are. Raises InputError where ``file`` exists or a source is not what
    it was, JournalError for a run that is damaged.
    """
    if file.exists():
        raise InputError(f"{file} exists already: name another file")
    events = list(read_journal(folder))
    if not events or not isinstance(events[0], RunStart):
        raise JournalError(without_start(folder, events))
    inputs = events[0].inputs if sources else ()
    found = {own_name(source): find_same(source, folder) for source in inputs}
    media = run_media(folder)
    draft = file.with_name(f".draft-{file.name}")
    try:
        with zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED) as packed:
            about = {"kind": "keyeloop run", "format": FORMAT, "name": folder.absolute().name}
            packed.writestr(zipfile.ZipInfo(ABOUT, _EARLIEST), json.dumps(about))
            lines = b"".join(sealed(event_to_line(event)) for event in events)
            packed.writestr(zipfile.ZipInfo(JOURNAL, _EARLIEST), lines, zipfile.ZIP_DEFLATED)
            for sha256 in sorted(pictures_of(events)):
                packed.writestr(zipfile.ZipInfo(f"{MEDIA}/{sha256[:2]}/{sha256}", _EARLIEST), media.read(sha256))
            for name, path in sorted(found.items()):
                info = zipfile.ZipInfo(f"{SOURCES}/{name}", _EARLIEST)
                with path.open("rb") as read, packed.open(info, "w", force_zip64=True) as write:
                    shutil.copyfileobj(read, write, _PIECE_BYTES)
        draft.replace(file)
    except OSError as error:
        raise JournalError(f"{file} could not be written: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)
    return file.stat().st_size


def unpack(file: Path, runs: Path) -> Path:
    """Put the run of ``file`` below ``runs``, under the name that it had; its folder.

    Raises InputError for a file that is no packed run, that was changed, or whose run is there already.
    """
    try:
        with zipfile.ZipFile(file) as packed:
            about = json.loads(packed.read(ABOUT))
            name = str(about["name"])
            if not _NAME.fullmatch(name):
                raise InputError(f"{file} names its run {name!r}, which is no name of a folder")
            folder = runs / name
            if folder.exists():
                raise InputError(f"{folder} exists already: unpack into another folder of runs (--runs)")
            draft = runs / f".draft-{name}"
            shutil.rmtree(draft, ignore_errors=True)
            try:
                _extract(packed, draft, file)
                draft.replace(folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
    except FileNotFoundError:
        raise InputError(f"there is no file {file}") from None
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, OSError) as error:
        raise InputError(f"{file} cannot be unpacked ({error}): is it a packed run, and whole?") from None
    return folder


def _extract(packed: zipfile.ZipFile, folder: Path, file: Path) -> None:
    """Only what a run has, only under its own names, only with the bytes that the names promise."""
    folder.mkdir(parents=True)
    (folder / JOURNAL).write_bytes(packed.read(JOURNAL))
    for info in packed.infolist():
        own = _SOURCE.fullmatch(info.filename)
        if own is not None:
            _extract_source(packed, info, folder, own[1], file)
            continue
        found = _PICTURE.fullmatch(info.filename)
        if found is None:
            if info.filename not in (ABOUT, JOURNAL):
                raise InputError(f"{file} holds {info.filename!r}, which is no part of a run")
            continue
        data = packed.read(info)
        if hashlib.sha256(data).hexdigest() != found[2] or found[2][:2] != found[1]:
            raise InputError(f"{file} is damaged: its picture {found[2]} does not match its name")
        place = folder / info.filename
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    events = list(read_journal(folder))
    declared = events[0].inputs if events and isinstance(events[0], RunStart) else ()
    names = {own_name(source) for source in declared}
    strange = next((path.name for path in (folder / SOURCES).glob("*") if path.name not in names), None)
    if strange is not None:
        raise InputError(f"{file} holds {SOURCES}/{strange}, which its run never looked into")
    missing = [sha256 for sha256 in pictures_of(events) if not run_media(folder).path(sha256).is_file()]
    if not events or missing:
        raise InputError(f"{file} is not whole: {f'picture {missing[0]}' if missing else 'its record'} is missing")
    assert is_run(folder)


def _extract_source(packed: zipfile.ZipFile, info: zipfile.ZipInfo, folder: Path, sha256: str, file: Path) -> None:
    place, digest = folder / info.filename, hashlib.sha256()
    place.parent.mkdir(exist_ok=True)
    with packed.open(info) as read, place.open("wb") as write:
        while piece := read.read(_PIECE_BYTES):
            digest.update(piece)
            write.write(piece)
    if digest.hexdigest() != sha256:
        raise InputError(f"{file} is damaged: its source {info.filename} does not match its name")
