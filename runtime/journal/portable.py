"""A run as one file that can be sent, and back: a plain zip of its record and its pictures."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import zipfile
from pathlib import Path

from keyeloop.runtime.errors import InputError, JournalError
from keyeloop.runtime.events import FORMAT, event_to_line
from keyeloop.runtime.journal.layout import JOURNAL, MEDIA, is_run, run_media
from keyeloop.runtime.journal.lines import sealed
from keyeloop.runtime.journal.pictures import pictures_of
from keyeloop.runtime.journal.reading import read_journal

ABOUT = "keyeloop-run.json"
SUFFIX = ".keyeloop"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_PICTURE = re.compile(rf"{MEDIA}/([0-9a-f]{{2}})/([0-9a-f]{{64}})")
_EARLIEST = (1980, 1, 1, 0, 0, 0)


def pack(folder: Path, file: Path) -> int:
    """Write the run in ``folder`` to ``file``; its bytes. The same run gives the same bytes.

    The record is written in the present format, in one piece. Source videos stay where they are. Raises InputError
    where ``file`` exists, JournalError for a run that is damaged.
    """
    if file.exists():
        raise InputError(f"{file} exists already: name another file")
    events = list(read_journal(folder))
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
    missing = [sha256 for sha256 in pictures_of(events) if not run_media(folder).path(sha256).is_file()]
    if not events or missing:
        raise InputError(f"{file} is not whole: {f'picture {missing[0]}' if missing else 'its record'} is missing")
    assert is_run(folder)
