"""Who reads text in a picture: a protocol, so that any engine can."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from keyeloop.runtime.picture import Pixels


@dataclass(frozen=True)
class TextLine:
    """One line of text in a picture."""

    text: str
    box: tuple[float, float, float, float]
    """``x0, y0, x1, y1`` in pixels of that picture, origin at the top left."""
    confidence: float
    """From 0 to 1."""


class TextReader(Protocol):
    """Finds text in a picture."""

    def read(self, pixels: Pixels) -> Iterable[TextLine]:
        """The lines in ``pixels``, height x width x 3 of uint8 RGB, in reading order; none where there is no text.

        Called in a thread, one call at a time.
        """
