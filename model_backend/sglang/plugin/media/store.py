"""The one folder that a served picture may be read from, by the sha256 of its bytes and by nothing else."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from keyeloop.model_backend.sglang.wire import referenced
from keyeloop.runtime.errors import ConfigError, InputError

STORE_VARIABLE = "KEYELOOP_MEDIA_STORE"
"""Names the folder; without it every reference is refused."""
MAX_FILE_BYTES = 256 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class ReferencedStore:
    """Reads ``root/ab/abcdef...``; follows no link, opens no path from outside, writes nothing."""

    def __init__(self, root: Path) -> None:
        """ConfigError where ``root`` is no folder."""
        if not root.is_dir():
            raise ConfigError(f"{STORE_VARIABLE}={root} is no folder: make it, or leave the variable out")
        self.root = root.resolve()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> ReferencedStore | None:
        """The store that ``KEYELOOP_MEDIA_STORE`` names, if it is set."""
        named = environment.get(STORE_VARIABLE, "").strip()
        return cls(Path(named).expanduser()) if named else None

    def read(self, url: str) -> bytes:
        """The bytes behind ``keyeloop-media:sha256``.

        Raises InputError for any other text, an unknown sha256, a link, anything but a regular file, one over
        256 MiB, or bytes that no longer have the sha256.
        """
        sha256 = referenced(url)
        try:
            data = self._read(sha256)
        except OSError:
            raise InputError(f"no picture {sha256} in the media store of this server: send it by value") from None
        if hashlib.sha256(data).hexdigest() != sha256:
            raise InputError(f"the file of {sha256} in the media store of this server was changed: send it by value")
        return data

    def _read(self, sha256: str) -> bytes:
        root = os.open(self.root, _FOLDER)
        try:
            folder = os.open(sha256[:2], _FOLDER, dir_fd=root)
        finally:
            os.close(root)
        try:
            handle = os.open(sha256, _FILE, dir_fd=folder)
        finally:
            os.close(folder)
        with os.fdopen(handle, "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_FILE_BYTES:
                raise OSError(f"{sha256} is no regular file of a picture's size")
            return file.read(MAX_FILE_BYTES)
