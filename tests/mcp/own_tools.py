"""Tools of a user, named on the command line as ``own_tools.py:NAME``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from keyeloop.tools import Progress, tool


@dataclass
class Place:
    """Somewhere."""

    x: int
    side: Literal["left", "right"] = "left"


@tool
def mark(place: Place) -> str:
    """Mark a place.

    Args:
        place: Where.
    """
    return f"marked {place.x} {place.side}"


@tool
def paint(shade: int) -> Iterator[Any]:
    """Paint a square."""
    yield Progress("mixing", 1, 2)
    print("a print disturbs nobody")
    yield np.full((56, 56, 3), shade, np.uint8)


@tool
def divide(by: int) -> float:
    """Divide one."""
    return 1 / by
