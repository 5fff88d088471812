"""Source files by content: sha256 read in the background, and only once for a file that has not changed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import tempfile
import threading
import time
from pathlib import Path

from keyeloop.runtime.errors import InputError, KeyeloopError

_CHUNK_BYTES = 1 << 20
_SETTLED_NS = 2_000_000_000
"""A file changed later than this before it was read is not cached: a second change could leave the same time stamp."""


def cache_folder() -> Path:
    """``~/.cache/keyeloop``, or below ``XDG_CACHE_HOME`` where that is set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "keyeloop"


def hash_file(path: Path, cache: Path | None = None) -> str:
    """sha256 of a file's bytes in hexadecimal; a known (path, size, time, inode) is answered from ``cache``.

    ``cache`` defaults to :func:`cache_folder`. Raises InputError for a missing file, a folder, an unreadable file, or
    one that changes while it is read.
    """
    path = path.absolute()
    before = _identity(path)
    entry = (cache or cache_folder()) / "hashes" / f"{hashlib.sha256(os.fsencode(path)).hexdigest()}.json"
    known = _recall(entry, before)
    if known is not None:
        return known
    digest = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    if _identity(path) != before:
        raise InputError(f"{path} changed while it was read: wait until it is written, then ask again")
    if time.time_ns() - before["mtime_ns"] > _SETTLED_NS:
        _remember(entry, before, digest.hexdigest())
    return digest.hexdigest()


class BackgroundHash:
    """Hashes one file in a thread of its own, so that a run can begin meanwhile."""

    def __init__(self, path: Path, cache: Path | None = None) -> None:
        self.path = path
        self._answer: str | KeyeloopError | None = None
        self._thread = threading.Thread(target=self._hash, args=(cache,), name=f"hash {path.name}", daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether the answer is there, so that :meth:`sha256` returns at once."""
        return not self._thread.is_alive()

    def sha256(self) -> str:
        """The hash; waits for it. Raises InputError as :func:`hash_file` does."""
        self._thread.join()
        if isinstance(self._answer, str):
            return self._answer
        raise self._answer or InputError(f"{self.path} could not be hashed")

    async def wait(self) -> str:
        """The hash, without holding up the event loop. Raises InputError as :func:`hash_file` does."""
        return await asyncio.to_thread(self.sha256)

    def _hash(self, cache: Path | None) -> None:
        try:
            self._answer = hash_file(self.path, cache)
        except KeyeloopError as error:
            self._answer = error


def _identity(path: Path) -> dict[str, int]:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    if path.is_dir():
        raise InputError(f"{path} is a folder: name a file in it")
    if not path.is_file():
        raise InputError(f"{path} is no regular file: copy it into one")
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "inode": status.st_ino}


def _recall(entry: Path, identity: dict[str, int]) -> str | None:
    try:
        known = json.loads(entry.read_bytes())
        return str(known["sha256"]) if known["identity"] == identity else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(entry: Path, identity: dict[str, int], sha256: str) -> None:
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=entry.parent, prefix=".draft-")
        with os.fdopen(handle, "w") as file:
            json.dump({"identity": identity, "sha256": sha256}, file)
        Path(draft).replace(entry)
    except OSError:
        return  # a cache that cannot be written only costs time
