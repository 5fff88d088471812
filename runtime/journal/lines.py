"""One event as a line of the record, sealed: its last field is the CRC-32 of all that stands before it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

from pydantic_core import from_json

_SEAL_BEGIN, _SEAL_END = b',"crc32":"', b'"}'
_SEAL_BYTES = len(b',"crc32":"00000000"}')
_DIGITS = re.compile(rb"[0-9a-f]{8}")


@dataclass(frozen=True)
class Damage:
    """What cannot be read of a record, and where."""

    path: Path
    line: int
    """1 is the first of the file; 0 where it is about the file as a whole."""
    problem: str
    torn: bool = False
    """The unfinished last line of a process that was killed: nothing that had been recorded is lost."""

    def __str__(self) -> str:
        place = f"line {self.line} " if self.line else ""
        return f"{self.path} is damaged: {place}{self.problem}"


def sealed(line: bytes) -> bytes:
    """``line``, a JSON object, with its checksum and a line end."""
    body = line[:-1]
    return b'%s,"crc32":"%08x"}\n' % (body, crc32(body))


def seal_problem(line: bytes) -> str:
    """What is wrong with a line without its line end; empty for a sound one, and for one that was never sealed."""
    seal = line[-_SEAL_BYTES:]
    if not (seal.startswith(_SEAL_BEGIN) and seal.endswith(_SEAL_END) and _DIGITS.fullmatch(seal, 10, 18)):
        return ""
    if int(seal[10:18], 16) != crc32(line[:-_SEAL_BYTES]):
        return "does not match its checksum: it was changed after it was written"
    return ""


def parse_line(line: bytes) -> dict[str, Any]:
    """The JSON object of a line. ValueError says what is wrong with it."""
    problem = seal_problem(line)
    if problem:
        raise ValueError(problem)
    try:
        value = from_json(line)
    except ValueError as error:
        raise ValueError(f"cannot be read ({error})") from None
    if not isinstance(value, dict):
        raise ValueError("cannot be read (no JSON object)")
    value.pop("crc32", None)
    return value
