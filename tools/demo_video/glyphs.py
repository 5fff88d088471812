"""Letter shapes for painted videos: alpha masks of A-Z, a-z and 0-9 at one cap height, for every font of a set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keyeloop.runtime.errors import InputError

Array = npt.NDArray[Any]

CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
CAP_PX = 64
"""Height of a capital H in atlas pixels."""
ROWS = 96
"""Rows of every mask: room for ascenders above the capitals and descenders below the line."""
BASELINE = 72
"""The row below the last row of a capital."""
_INDEX = {character: index for index, character in enumerate(CHARACTERS)}


@dataclass(frozen=True)
class Placement:
    """One glyph of a laid-out line, in atlas pixels from the left end of the line's ink."""

    column: int
    """First column of the glyph's mask in the atlas's columns."""
    width: int
    x: int


@dataclass(frozen=True)
class Line:
    """A text laid out in atlas pixels; its ink spans ``width`` columns and the rows ``top`` to ``bottom``."""

    placements: tuple[Placement, ...]
    width: int
    top: int
    bottom: int


@dataclass(frozen=True, eq=False)
class GlyphAtlas:
    """Masks and metrics of a set of fonts, all scaled to a cap height of 64 pixels.

    ``columns`` is uint8 alpha ``[total columns, 96]``: a glyph is a run of columns, so that a line of text is a choice
    of columns. ``start``, ``width``, ``left``, ``advance``, ``top`` and ``bottom`` are int32 ``[fonts, 62]`` in
    the order of :data:`CHARACTERS`: first column, ink width, ink offset from the pen, pen advance, ink rows.
    """

    names: tuple[str, ...]
    heldout: tuple[bool, ...]
    """True for fonts that the embedded model was never trained on."""
    columns: Array = field(repr=False)
    start: Array = field(repr=False)
    width: Array = field(repr=False)
    left: Array = field(repr=False)
    advance: Array = field(repr=False)
    top: Array = field(repr=False)
    bottom: Array = field(repr=False)

    @classmethod
    def load(cls, path: Path) -> GlyphAtlas:
        """Read an atlas from an ``.npz`` file written by :meth:`save`; InputError when it is none."""
        try:
            with np.load(path, allow_pickle=False) as data:
                packed = data["packed"]
                metrics = {name: data[name].astype(np.int32) for name in _METRICS}
                names = tuple(str(name) for name in data["names"])
                heldout = tuple(bool(flag) for flag in data["heldout"])
        except (OSError, KeyError, ValueError) as error:
            raise InputError(
                f"{path} is not a glyph atlas: {error}; build one with training.keye_tiny.font_atlas"
            ) from error
        nibbles = np.empty((packed.shape[0], ROWS), np.uint8)
        nibbles[:, 0::2] = packed >> 4
        nibbles[:, 1::2] = packed & 15
        return cls(names, heldout, nibbles * np.uint8(17), **metrics)

    @classmethod
    def bundled(cls) -> GlyphAtlas:
        """The fonts that ship with the package (their licences are listed in ``FONTS.md`` beside them)."""
        return cls.load(Path(str(files("keyeloop.tools.demo_video") / "fonts.npz")))

    def save(self, path: Path) -> None:
        """Write the atlas; alphas are kept to 16 levels, two in a byte."""
        nibbles = (self.columns.astype(np.uint16) * 15 + 127) // 255
        packed = (nibbles[:, 0::2] << 4 | nibbles[:, 1::2]).astype(np.uint8)
        metrics = {name: getattr(self, name).astype(np.int32) for name in _METRICS}
        np.savez_compressed(path, names=np.array(self.names), heldout=np.array(self.heldout), packed=packed, **metrics)

    @property
    def fonts(self) -> int:
        return len(self.names)

    def choose(self, *, heldout: bool) -> tuple[int, ...]:
        """Indices of the held-out fonts, or of the others."""
        return tuple(index for index, flag in enumerate(self.heldout) if flag == heldout)

    def line(self, text: str, font: int, spacing: float = 0.0) -> Line:
        """Lay ``text`` out in font ``font``; ``spacing`` is extra space between letters, in cap heights.

        Placements are whole atlas pixels, so that every painter agrees on them. An empty text has width 0.
        InputError names a character that no font has.
        """
        extra = round(spacing * CAP_PX)
        start, width, left, advance, top, bottom = self._tables
        pen, first, last, high, low = 0, 1 << 20, -(1 << 20), ROWS, 0
        spots: list[tuple[int, int, int]] = []
        for character in text:
            index = _INDEX.get(character)
            if index is None:
                raise InputError(f"cannot paint {character!r} of {text!r}: only A-Z, a-z and 0-9 have glyphs")
            x, ink = pen + left[font][index], width[font][index]
            spots.append((start[font][index], ink, x))
            first, last = min(first, x), max(last, x + ink)
            high, low = min(high, top[font][index]), max(low, bottom[font][index])
            pen += advance[font][index] + extra
        if not spots:
            return Line((), 0, BASELINE - CAP_PX, BASELINE)
        return Line(tuple(Placement(c, w, x - first) for c, w, x in spots), last - first, high, low)

    def widest(self, texts: Sequence[str], font: int, spacing: float = 0.0) -> int:
        """Ink width in atlas pixels of the widest of ``texts``."""
        return max((self.line(text, font, spacing).width for text in texts), default=0)

    def strip(self, line: Line) -> Array:
        """The line's alpha mask, uint8 ``[96, line.width]``; touching glyphs take the larger alpha."""
        mask = np.zeros((line.width, ROWS), np.uint8)
        for spot in line.placements:
            window = mask[spot.x : spot.x + spot.width]
            np.maximum(window, self.columns[spot.column : spot.column + spot.width], out=window)
        return mask.T

    @cached_property
    def _tables(self) -> tuple[list[list[int]], ...]:
        return tuple(getattr(self, name).tolist() for name in _METRICS)


_METRICS = ("start", "width", "left", "advance", "top", "bottom")
