"""Docstrings: the three styles say the same, the rest is prose."""

from __future__ import annotations

import pytest

from keyeloop.tools.docstring import read_docstring

GOOGLE = """Look at it.

More of it,
on two lines.

Args:
    a (int): First
        of all.
    *rest: The rest: of it.

Returns:
    b: Not a parameter.
"""
NUMPY = """Look at it.

More of it, on two lines.

Parameters
----------
a : int, optional
    First
    of all.
rest
    The rest: of it.

Returns
-------
b : int
    Not a parameter.
"""
SPHINX = """Look at it.

More of it, on two lines.

:param int a: First
    of all.
:param rest: The rest: of it.
:returns: Not a parameter.
"""


@pytest.mark.parametrize("text", [GOOGLE, NUMPY, SPHINX])
def test_docstring_styles_say_the_same(text: str) -> None:
    read = read_docstring(text)
    assert read.prose == "Look at it. More of it, on two lines."
    assert read.parameters == {"a": "First of all.", "rest": "The rest: of it."}


@pytest.mark.parametrize(
    "text,prose", [(None, ""), ("Plain.", "Plain."), ("Odd: one.\n\nTwo:\n  x: y", "Odd: one. Two: x: y")]
)
def test_plain_docstrings_are_prose(text: str | None, prose: str) -> None:
    assert read_docstring(text).prose == prose and read_docstring(text).parameters == {}
