"""The key that a server asks for: given, or made once and kept in a file that only this user reads."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from keyeloop.runtime.errors import InputError, OperatorError

VARIABLE = "KEYELOOP_API_KEY"
"""What clients send; a server that is started from the same shell asks for the same."""
KEY_FILE = "server.key"
_KEY = re.compile(r"[\x21-\x7e]{8,512}")


def state_folder(environment: Mapping[str, str]) -> Path:
    """``~/.local/state/keyeloop``, or below ``XDG_STATE_HOME`` where that is set: keys and logs of servers."""
    return Path(environment.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "keyeloop"


def given_key(environment: Mapping[str, str], file: Path | None) -> str | None:
    """The key of ``file``, else of ``KEYELOOP_API_KEY``, else None. InputError, not repeating it, for a bad one."""
    if file is None:
        key, origin = environment.get(VARIABLE, ""), VARIABLE
        if not key:
            return None
    else:
        try:
            key, origin = file.read_text(encoding="utf-8").strip(), str(file)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"the key file {file} cannot be read: {error}") from None
    if not _KEY.fullmatch(key):
        raise InputError(f"the key of {origin} cannot be one: 8 to 512 printable characters without white space")
    return key


def kept_key(folder: Path) -> tuple[str, Path]:
    """The key of this user's servers and its file, made on first use: 32 random bytes, readable by its owner alone.

    Raises InputError for a file that others can read or that holds no key, OperatorError where none can be written.
    """
    file = folder / KEY_FILE
    if file.is_file():
        if file.stat().st_mode & 0o077:
            raise InputError(f"{file} can be read by others: chmod 600 it, or delete it to get a new key")
        found = given_key({}, file)
        assert found is not None
        return found, file
    key = secrets.token_urlsafe(32)
    write_private(file, key + "\n")
    return key, file


def write_private(file: Path, text: str) -> None:
    """Write ``text`` where only this user can read it; whoever looks sees the old file or the whole new one.

    OperatorError where it cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = file.with_name(f"{file.name}.{os.getpid()}")
        part.unlink(missing_ok=True)
        part.touch(mode=0o600, exist_ok=False)
        part.write_text(text, encoding="utf-8")
        part.replace(file)
    except OSError as error:
        raise OperatorError(f"{file} cannot be written: {error.strerror or error}; set XDG_STATE_HOME") from None
