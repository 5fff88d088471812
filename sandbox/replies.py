"""Checks what a worker says. It shares its process with hostile code, so every field is taken as a claim."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any, Final, NamedTuple

from keyeloop.sandbox.frames import PipeBroken
from keyeloop.sandbox.results import Display, ExecError

SHOWN_AS: Final = frozenset(
    {
        "application/json",
        "image/jpeg",
        "image/png",
        "image/svg+xml",
        "text/html",
        "text/latex",
        "text/markdown",
        "text/plain",
    }
)
_MAX_ENTRIES: Final = 1024
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f<>\\]")


class ExecReply(NamedTuple):
    """A worker's account of one execution, of the right shape but not to be believed."""

    status: str
    stdout: str
    stderr: str
    truncated: bool
    error: ExecError | None
    displays: tuple[Display, ...]
    files: tuple[tuple[PurePosixPath, int], ...]
    refused: tuple[str, ...]
    """One line for each thing in the output folder that is not taken."""


def parse_exec(header: dict[str, Any], blob: bytes) -> ExecReply:
    """Read the reply to an execution. Raises PipeBroken where it is not one."""
    status = _take(header, "status", str)
    if status not in ("ok", "error", "interrupted"):
        raise PipeBroken(f"a reply had the status {status[:40]!r}")
    files: list[tuple[PurePosixPath, int]] = []
    refused: list[str] = []
    for entry in _entries(header, "files"):
        name, size = _pair(entry, str, int)
        path = safe_path(name)
        if path is None or size < 0:
            refused.append(f"artifact {name[:80]!r} left out: its name is not a plain relative path")
        else:
            files.append((path, size))
    for entry in _entries(header, "refused"):
        name, why = _pair(entry, str, str)
        refused.append(f"artifact {name[:80]!r} left out: {_text(why)[:80]}")
    return ExecReply(
        status,
        _text(_take(header, "stdout", str)),
        _text(_take(header, "stderr", str)),
        _take(header, "truncated", bool),
        _error(header.get("error")),
        tuple(_display(entry, blob) for entry in _entries(header, "displays")),
        tuple(files),
        tuple(refused),
    )


def safe_path(name: str) -> PurePosixPath | None:
    """``name`` as a relative path without surprises (no ``..``, control or markup characters), or None."""
    parts = name.split("/")
    if len(name) > 200 or _CONTROL.search(name) or any(part in ("", ".", "..") for part in parts):
        return None
    return PurePosixPath(name) if _text(name) == name else None


def take_int(header: dict[str, Any], key: str) -> int:
    """A non-negative whole number of a reply. Raises PipeBroken for anything else."""
    value: int = _take(header, key, int)
    if value < 0:
        raise PipeBroken(f"a reply had {key} {value}")
    return value


def _display(entry: Any, blob: bytes) -> Display:
    if not isinstance(entry, dict):
        raise PipeBroken("a display was not an object")
    data: dict[str, str | bytes] = {}
    for mime, content in entry.items():
        if mime not in SHOWN_AS:
            continue
        if isinstance(content, str):
            data[mime] = _text(content)
        else:
            start, size = _pair(content, int, int)
            if not 0 <= start <= start + size <= len(blob):
                raise PipeBroken("a display lay outside its frame")
            data[mime] = blob[start : start + size]
    return Display(data)


def _error(entry: Any) -> ExecError | None:
    if entry is None:
        return None
    if not isinstance(entry, dict):
        raise PipeBroken("an error was not an object")
    line = entry.get("line")
    return ExecError(
        _text(_take(entry, "name", str))[:200],
        _text(_take(entry, "message", str)),
        _text(_take(entry, "traceback", str)),
        line if type(line) is int else None,
    )


def _entries(header: dict[str, Any], key: str) -> list[Any]:
    value: list[Any] = _take(header, key, list)
    if len(value) > _MAX_ENTRIES:
        raise PipeBroken(f"a reply had {len(value)} {key}")
    return value


def _pair(entry: Any, first: type, second: type) -> tuple[Any, Any]:
    if not (isinstance(entry, list) and len(entry) == 2 and type(entry[0]) is first and type(entry[1]) is second):
        raise PipeBroken("a reply held something other than a pair")
    return entry[0], entry[1]


def _take(header: dict[str, Any], key: str, kind: type) -> Any:
    value = header.get(key)
    if type(value) is not kind:
        raise PipeBroken(f"a reply had no {key}")
    return value


def _text(value: str) -> str:
    """Without lone surrogates, which no file or socket takes."""
    return value.encode("utf-8", "replace").decode("utf-8")
