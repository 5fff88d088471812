"""An index of a folder of documents: SQLite FTS5, porter stems, bm25; kept on disk and refreshed by file times."""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from keyeloop.runtime.errors import InputError
from keyeloop.runtime.source import cache_folder
from keyeloop.tools.search.reading import FileReader, readable_suffixes, titled

SNIPPET_WORDS = 40
TITLE_WEIGHT = 4.0
"""A word in a title counts this many times one in the text."""
FILES_AT_ONCE = 50
"""So many files are read before they are kept: what breaks a refresh off costs no more than these."""
_VERSION = 1

STOP_WORDS = frozenset(
    "a about above after all also am an and any are as at be been before being between both but by can could did do "
    "does doing down during each few for from further had has have having he her here hers him his how i if in into is "
    "it its itself me more most my no nor not of off on once only or other our out over own same she should so some "
    "such tell than that the their them then there these they this those through to too under until up very was we "
    "were what when where which while who whom whose why will with would you your".split()
)
_WORD = re.compile(r"\w+")
_SCHEMA = """
CREATE TABLE files (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, text INTEGER);
CREATE VIRTUAL TABLE texts USING fts5(title, body, path UNINDEXED, tokenize = 'porter unicode61 remove_diacritics 2');
"""


@dataclass(frozen=True)
class Hit:
    """One document that matches."""

    title: str
    path: str
    """Relative to the folder of documents, with forward slashes."""
    snippet: str
    """The stretch that matches best, on one line."""


@dataclass(frozen=True)
class Refreshed:
    """What a refresh did to an index."""

    documents: int
    """In the index now."""
    read: int
    removed: int
    problems: tuple[tuple[str, str], ...]
    """Path and reason of files read now of which nothing but the name is in the index."""
    file: Path | None
    """Where the index is kept; None where there is no place to keep it."""


Progress = Callable[[int, int, str], None]
"""Told of every file before it is read: how many were, how many there are to read, its path."""


class DocumentIndex:
    """The documents below one folder: .txt and .md, and with the extra ``pages`` .html, .htm and .pdf.

    Refreshing reads only what is new or changed.
    """

    def __init__(self, folder: Path, cache: Path | None = None) -> None:
        """``cache`` defaults to the user's cache folder. Raises InputError when ``folder`` is no folder."""
        if not folder.is_dir():
            raise InputError(f"no such folder of documents: {folder}")
        self.folder = folder.resolve()
        name = hashlib.sha256(os.fsencode(self.folder)).hexdigest()
        self._file = (cache or cache_folder()) / "documents" / f"{name}-{_VERSION}.sqlite"

    def search(self, query: str, limit: int = 5) -> list[Hit]:
        """The best ``limit`` documents for a question, best first; stop words and punctuation do not count."""
        words = search_words(query)
        if not words:
            return []
        try:
            with closing(self._open()) as database:
                return self._ask(database, words, limit)
        except sqlite3.OperationalError:  # locked, or no place to write: work without a kept index
            with closing(_prepared(":memory:")) as database:
                return self._ask(database, words, limit)
        except sqlite3.DatabaseError:  # the kept index is damaged: make it anew
            self._file.unlink(missing_ok=True)
            with closing(self._open()) as database:
                return self._ask(database, words, limit)

    def refresh(self, progress: Progress | None = None) -> Refreshed:
        """Bring the kept index up to date, which a search does by itself; ``progress`` is told of every file."""
        try:
            with closing(self._open()) as database:
                return self._refresh(database, progress)
        except sqlite3.OperationalError:
            with closing(_prepared(":memory:")) as database:
                return replace(self._refresh(database, progress), file=None)
        except sqlite3.DatabaseError:
            self._file.unlink(missing_ok=True)
            with closing(self._open()) as database:
                return self._refresh(database, progress)

    def has_documents(self) -> bool:
        """Whether there is anything to search; reads names alone."""
        return any(True for _ in self._documents())

    def _open(self) -> sqlite3.Connection:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
        except OSError:
            return _prepared(":memory:")
        return _prepared(str(self._file))

    def _ask(self, database: sqlite3.Connection, words: list[str], limit: int) -> list[Hit]:
        self._refresh(database)
        return _best(database, words, limit)

    def _refresh(self, database: sqlite3.Connection, progress: Progress | None = None) -> Refreshed:
        found = {path: (status.st_size, status.st_mtime_ns) for path, status in self._documents()}
        kept = self._file if self._file.is_file() else None
        if found == _known(database):
            return Refreshed(len(found), 0, 0, (), kept)
        known = _known(database)
        gone = [path for path in known if path not in found]
        changed = [path for path in sorted(found) if found[path] != known.get(path)]
        database.execute("BEGIN IMMEDIATE")
        for path in gone:
            _forget(database, path)
        database.execute("COMMIT")
        problems: list[tuple[str, str]] = []
        with FileReader() as reader:
            for start in range(0, len(changed), FILES_AT_ONCE):
                database.execute("BEGIN IMMEDIATE")
                known = _known(database)  # another process may have been quicker
                for number, path in enumerate(changed[start : start + FILES_AT_ONCE], start):
                    if found[path] == known.get(path):
                        continue
                    if progress is not None:
                        progress(number, len(changed), path)
                    made = reader.read(self.folder / path)
                    if made.problem:
                        problems.append((path, made.problem))
                    _forget(database, path)
                    added = database.execute("INSERT INTO texts VALUES (?, ?, ?)", (made.title, made.text, path))
                    database.execute("INSERT INTO files VALUES (?, ?, ?, ?)", (path, *found[path], added.lastrowid))
                database.execute("COMMIT")
        return Refreshed(len(found), len(changed), len(gone), tuple(problems), kept)

    def _documents(self) -> Iterator[tuple[str, os.stat_result]]:
        """Regular files below the folder; links are not followed out of it."""
        suffixes = readable_suffixes()
        for top, folders, names in os.walk(self.folder):
            folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
            for name in names:
                path = Path(top) / name
                if path.suffix.lower() in suffixes and not path.is_symlink() and path.is_file():
                    with suppress(UnicodeEncodeError):  # a name that is no text cannot be told to a model
                        yield path.relative_to(self.folder).as_posix().encode().decode(), path.stat()


def search_texts(texts: Mapping[str, str], query: str, limit: int = 5) -> list[Hit]:
    """As :meth:`DocumentIndex.search`, over a few texts by path that are in no folder."""
    with closing(_prepared(":memory:")) as database:
        rows = ((*titled(path, text), path) for path, text in sorted(texts.items()))
        database.executemany("INSERT INTO texts VALUES (?, ?, ?)", rows)
        return _best(database, search_words(query), limit)


def search_words(query: str) -> list[str]:
    """Words of a question that say something; all of them where nothing else is left."""
    words = list(dict.fromkeys(_WORD.findall(query.lower())))
    return [word for word in words if word not in STOP_WORDS] or words


def _best(database: sqlite3.Connection, words: list[str], limit: int) -> list[Hit]:
    if not words:
        return []
    rows = database.execute(
        "SELECT title, path, snippet(texts, 1, '', '', ' ... ', ?) FROM texts WHERE texts MATCH ? "
        "ORDER BY bm25(texts, ?, 1.0), path LIMIT ?",
        (SNIPPET_WORDS, " OR ".join(f'"{word}"' for word in words), TITLE_WEIGHT, limit),
    )
    return [Hit(title, path, " ".join(snippet.split())) for title, path, snippet in rows]


def _prepared(place: str) -> sqlite3.Connection:
    """A connection to an index that has its tables."""
    database = sqlite3.connect(place, timeout=30, isolation_level=None)
    try:
        database.execute("BEGIN IMMEDIATE")
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'files'").fetchone():
            for statement in _SCHEMA.strip().split(";\n"):
                database.execute(statement)
        database.execute("COMMIT")
    except sqlite3.Error:
        database.close()
        raise
    return database


def _forget(database: sqlite3.Connection, path: str) -> None:
    database.execute("DELETE FROM texts WHERE rowid = (SELECT text FROM files WHERE path = ?)", (path,))
    database.execute("DELETE FROM files WHERE path = ?", (path,))


def _known(database: sqlite3.Connection) -> dict[str, tuple[int, int]]:
    rows = database.execute("SELECT path, size, mtime_ns FROM files")
    return {path: (size, mtime_ns) for path, size, mtime_ns in rows}
