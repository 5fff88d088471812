"""The record of a run: written append-only, read back whole or in part, checked, packed, and cleaned up behind."""

from keyeloop.runtime.journal.following import Following
from keyeloop.runtime.journal.layout import JOURNAL, MEDIA, SHARED_MEDIA, is_run, run_media
from keyeloop.runtime.journal.lines import Damage
from keyeloop.runtime.journal.reading import UNSTEADY, read_journal, salvage, steady, steady_lines
from keyeloop.runtime.journal.writer import Journal

__all__ = [
    "JOURNAL",
    "MEDIA",
    "SHARED_MEDIA",
    "UNSTEADY",
    "Damage",
    "Following",
    "Journal",
    "is_run",
    "read_journal",
    "run_media",
    "salvage",
    "steady",
    "steady_lines",
]
