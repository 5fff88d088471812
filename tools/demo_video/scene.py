"""What one frame of a board video shows, as numbers: painters turn it into pixels, questions are asked about it.

Coordinates are source pixels with the origin at the top left; pixel ``i`` covers ``[i, i + 1)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from keyeloop.runtime.evidence import Region
from keyeloop.tools.demo_video.glyphs import BASELINE, CAP_PX, GlyphAtlas

Colour = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""


class Style(IntEnum):
    """Patterns of a background; each mixes two colours. Parameters of each are listed in ``pattern``."""

    FLAT = 0
    LINEAR = 1
    RADIAL = 2
    STRIPES = 3
    CHECKER = 4
    DOTS = 5
    GRID = 6
    CLOUDS = 7
    ROOM = 8
    SPLIT = 9
    WAVES = 10
    BRICKS = 11
    RINGS = 12


HELDOUT_STYLES = (Style.WAVES, Style.BRICKS, Style.RINGS)
"""Backgrounds that the embedded model was never trained on."""


class ShapeKind(IntEnum):
    """Outlines of a distractor; a line is a thin rectangle."""

    ELLIPSE = 0
    RECTANGLE = 1


@dataclass(frozen=True)
class Background:
    """Two colours mixed by a pattern: ``first`` where the pattern is 0, ``second`` where it is 1."""

    style: Style
    first: Colour
    second: Colour
    angle_rad: float = 0.0
    period_px: float = 100.0
    """Repeat length; the reach of a gradient."""
    phase: float = 0.0
    """Shift along the pattern, in periods; of a room, the height of its floor as a share of the frame."""
    share: float = 0.5
    """Part of a period that the second colour fills."""


@dataclass(frozen=True)
class Shape:
    """A distractor, painted below the board and the signs."""

    kind: ShapeKind
    x: float
    y: float
    half_width: float
    half_height: float
    angle_rad: float
    colour: Colour


@dataclass(frozen=True)
class TextRun:
    """A line of text: the middle of its ink's width is at ``x``, the middle of its capitals' height at ``y``."""

    text: str
    font: int
    """Index into the glyph atlas."""
    cap_px: float
    """Height of a capital in source pixels."""
    x: float
    y: float
    colour: Colour
    spacing: float = 0.0
    """Extra space between letters, in cap heights."""


@dataclass(frozen=True)
class Panel:
    """A filled box with whole-pixel edges, a border inside it, and a text: the board, or a small sign."""

    box: tuple[int, int, int, int]
    """``x0, y0, x1, y1``, the last two excluded."""
    fill: Colour
    border: Colour
    border_px: int
    run: TextRun

    def with_text(self, text: str) -> Panel:
        return self if text == self.run.text else replace(self, run=replace(self.run, text=text))


@dataclass(frozen=True)
class Scene:
    """One frame: background, shapes, board and signs, then tone and noise over all of it."""

    background: Background
    board: Panel
    signs: tuple[Panel, ...] = ()
    shapes: tuple[Shape, ...] = ()
    brightness: float = 0.0
    """Added to every channel, in levels."""
    contrast: float = 1.0
    """Factor on every channel's distance from 128."""
    noise: float = 0.0
    """Standard deviation of grey grain, in levels of a source pixel."""
    width: int = 1280
    height: int = 720

    def with_texts(self, board_text: str, sign_texts: Sequence[str] = ()) -> Scene:
        """The same look with other texts: ``""`` empties the board, signs without a text are left out."""
        signs = tuple(sign.with_text(text) for sign, text in zip(self.signs, sign_texts, strict=False))
        return replace(self, board=self.board.with_text(board_text), signs=signs)

    def toned(self, colour: Colour) -> Colour:
        """A colour after the scene's brightness and contrast."""
        red, green, blue = (
            min(255, max(0, round((value - 128) * self.contrast + 128 + self.brightness))) for value in colour
        )
        return red, green, blue

    @property
    def region(self) -> Region:
        """The whole frame."""
        return Region(0, 0, self.width, self.height)


def run_region(run: TextRun, atlas: GlyphAtlas) -> Region:
    """The tight box of a run's ink in source pixels; of an empty run, a box of one cap height around its middle."""
    line = atlas.line(run.text, run.font, run.spacing)
    scale = run.cap_px / CAP_PX
    half = max(line.width * scale, run.cap_px * (not run.text)) / 2
    top = run.y + run.cap_px / 2 - BASELINE * scale
    return Region(run.x - half, top + line.top * scale, run.x + half, top + line.bottom * scale)


def text_region(scene: Scene, atlas: GlyphAtlas) -> Region:
    """The tight box of the board's text in source pixels."""
    return run_region(scene.board.run, atlas)


def sign_region(scene: Scene, index: int, atlas: GlyphAtlas) -> Region:
    """The tight box of a small sign's text in source pixels."""
    return run_region(scene.signs[index].run, atlas)


def panel_region(panel: Panel) -> Region:
    """The box of a board or sign, border included."""
    return Region(*panel.box)
