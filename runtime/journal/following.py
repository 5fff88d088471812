"""A record that is still being written, read as it grows."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from keyeloop.runtime.errors import JournalError
from keyeloop.runtime.events import Event, event_from_object
from keyeloop.runtime.journal.layout import chunk_path
from keyeloop.runtime.journal.lines import parse_line
from keyeloop.runtime.journal.migration import Migration


class Following:
    """Reads a run's events once each, however often it is asked; only what is new is read from disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._migration = Migration(folder)
        self._chunk = self._offset = 0

    def new(self) -> list[Event]:
        """Whole events that were written since the last call; at first all of them.

        A line that cannot be read is passed over (``salvage`` names it). JournalError where there is no run.
        """
        events: list[Event] = []
        while True:
            try:
                with chunk_path(self.folder, self._chunk).open("rb") as file:
                    file.seek(self._offset)
                    data = file.read()
            except OSError as error:
                raise JournalError(f"no run in {self.folder}: its record cannot be opened ({error.strerror})") from None
            whole = data[: data.rfind(b"\n") + 1]
            self._offset += len(whole)
            for line in whole.splitlines():
                try:
                    events.append(event_from_object(self._migration.present(parse_line(line))))
                except (ValidationError, ValueError):
                    continue
            if not chunk_path(self.folder, self._chunk + 1).exists():
                return events
            self._chunk, self._offset = self._chunk + 1, 0
