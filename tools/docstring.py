"""Docstrings taken apart: the prose, and what is said of each parameter, in Google, NumPy, Sphinx or plain style."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_GOOGLE = re.compile(r"(?P<title>[A-Z][A-Za-z ]*):\s*")
_UNDERLINE = re.compile(r"-{3,}\s*")
_FIELD = re.compile(r":(?P<kind>\w+)(?:\s+(?P<rest>[^:]*))?:\s*(?P<text>.*)")
_ENTRY = re.compile(r"(?P<name>\*{0,2}\w+)\s*(?:\([^)]*\))?\s*:\s*(?P<text>.*)")
_PARAMETERS = frozenset({"args", "arguments", "parameters", "params", "keyword args", "keyword arguments"})
_SECTIONS = _PARAMETERS | {
    *("attributes", "example", "examples", "note", "notes", "other parameters", "raises", "references"),
    *("return", "returns", "see also", "todo", "warning", "warnings", "yield", "yields"),
}


@dataclass(frozen=True)
class Docstring:
    """What a docstring says, each text on one line."""

    prose: str
    """Everything before the first section."""
    parameters: dict[str, str]


def read_docstring(text: str | None) -> Docstring:
    """Take a docstring apart; a style that is not known is all prose."""
    lines = inspect.cleandoc(text or "").splitlines()
    prose: list[str] = []
    parameters: dict[str, str] = {}
    for title, body in _sections(lines):
        if title is None:
            prose, fields = _without_fields(body)
            parameters |= fields
        elif title in _PARAMETERS:
            parameters |= _entries(body)
    return Docstring(_one_line(prose), parameters)


def _sections(lines: list[str]) -> Iterator[tuple[str | None, list[str]]]:
    title: str | None = None
    body: list[str] = []
    skip = False
    for index, line in enumerate(lines):
        if skip:
            skip = False
            continue
        following = lines[index + 1] if index + 1 < len(lines) else ""
        google = _GOOGLE.fullmatch(line)
        underlined = bool(_UNDERLINE.fullmatch(following)) and line.strip().lower() in _SECTIONS
        if underlined or (google and google["title"].lower() in _SECTIONS):
            yield title, body
            title, body, skip = line.strip().rstrip(":").lower(), [], underlined
        else:
            body.append(line)
    yield title, body


def _without_fields(lines: list[str]) -> tuple[list[str], dict[str, str]]:
    """Prose before the first Sphinx field (``:param name: text``), and the fields."""
    starts = [index for index, line in enumerate(lines) if _FIELD.fullmatch(line)]
    if not starts:
        return lines, {}
    parameters: dict[str, str] = {}
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        match = _FIELD.fullmatch(lines[start])
        assert match is not None
        words = (match["rest"] or "").split()
        if match["kind"] in ("param", "parameter", "arg", "argument") and words:
            parameters[words[-1].lstrip("*")] = _one_line([match["text"], *lines[start + 1 : end]])
    return lines[: starts[0]], parameters


def _entries(lines: list[str]) -> dict[str, str]:
    """Parameters of one section: ``name (type): text``, or NumPy's ``name : type`` over indented text."""
    filled = [line for line in lines if line.strip()]
    margin = min((_indent(line) for line in filled), default=0)
    found: dict[str, list[str]] = {}
    names: list[str] = []
    for line in filled:
        entry = _ENTRY.fullmatch(line.strip())
        if _indent(line) > margin:
            for name in names:
                found[name].append(line)
        elif margin == 0:  # NumPy: names stand at the margin, types after the colon
            names = [name.strip().lstrip("*") for name in line.split(":")[0].split(",")]
            found |= {name: [] for name in names}
        elif entry is not None:
            names = [entry["name"].lstrip("*")]
            found[names[0]] = [entry["text"]]
    return {name: _one_line(text) for name, text in found.items() if _one_line(text)}


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _one_line(lines: Iterable[str]) -> str:
    return " ".join(" ".join(lines).split())
