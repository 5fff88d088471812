"""A record of an older format, written anew in the present one before it goes on."""

from __future__ import annotations

import os
from collections.abc import Iterable
from io import FileIO
from pathlib import Path
from tempfile import mkstemp

from keyeloop.runtime.errors import JournalError
from keyeloop.runtime.events import Event, event_to_line
from keyeloop.runtime.journal.chunks import lock
from keyeloop.runtime.journal.layout import JOURNAL, chunk_paths
from keyeloop.runtime.journal.lines import sealed


def rewrite(folder: Path, first: FileIO, events: Iterable[Event]) -> tuple[FileIO, int]:
    """Put ``events`` in the place of the record's only file, at once or not at all; the new file, locked, and its size.

    ``first`` is the old one, which is locked and gets closed. Raises JournalError where it cannot be written.
    """
    if len(chunk_paths(folder)) > 1:
        raise JournalError(f"the run in {folder} is of an old format and in several files: copy it elsewhere first")
    draft = None
    try:
        handle, draft = mkstemp(dir=folder, prefix=".journal-")
        with os.fdopen(handle, "wb") as file:
            for event in events:
                file.write(sealed(event_to_line(event)))
            size = file.tell()
            file.flush()
            os.fsync(file.fileno())
        os.chmod(draft, (folder / JOURNAL).stat().st_mode & 0o777)  # noqa: PTH101
        new = Path(draft).open("r+b", buffering=0)  # noqa: SIM115  it stays open
        lock(new, folder)
        Path(draft).replace(folder / JOURNAL)
    except OSError as error:
        if draft is not None:
            Path(draft).unlink(missing_ok=True)
        raise JournalError(f"{folder / JOURNAL} could not be written anew: {error.strerror}") from error
    first.close()
    return new, size
