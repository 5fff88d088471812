"""Docstrings taken apart: the prose, and what is said of each parameter, in Google, NumPy, Sphinx or plain style."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass

_SECTION = re.compile(r"^\s*(?:[A-Z][\w ]*:\s*$|-{3,}\s*$|[:@]\w+)", re.MULTILINE)
"""Something that may begin a section. Without it all is prose, and importing griffe, a tenth of a second, is spared."""


@dataclass(frozen=True)
class Docstring:
    """What a docstring says, each text on one line."""

    prose: str
    """Everything before the first section."""
    parameters: dict[str, str]


def read_docstring(text: str | None) -> Docstring:
    """Take a docstring apart; a style that is not known is all prose."""
    clean = inspect.cleandoc(text or "")
    if not _SECTION.search(clean):
        return Docstring(_one_line(clean), {})
    import griffe

    options: griffe.PerStyleOptions = {
        "google": {"warnings": False},
        "numpy": {"warnings": False},
        "sphinx": {"warnings": False},
    }
    prose: list[str] = []
    parameters: dict[str, str] = {}
    leading = True
    for section in griffe.Docstring(clean, lineno=1).parse(griffe.Parser.auto, per_style_options=options):
        if isinstance(section, griffe.DocstringSectionText):
            prose += [section.value] if leading else []
            continue
        leading = False
        if isinstance(section, griffe.DocstringSectionParameters | griffe.DocstringSectionOtherParameters):
            said = {one.name.lstrip("*"): _one_line(one.description) for one in section.value}
            parameters |= {name: words for name, words in said.items() if words}
    return Docstring(_one_line(" ".join(prose)), parameters)


def _one_line(text: str) -> str:
    return " ".join(text.split())
