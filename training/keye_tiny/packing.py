"""A frame to render as one row of numbers, cheap to make in a data worker and to move to the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from keyeloop.runtime.evidence import Region
from keyeloop.tools.demo_video.glyphs import BASELINE, CAP_PX, GlyphAtlas
from keyeloop.tools.demo_video.paint import sharpness
from keyeloop.tools.demo_video.scene import Panel, Scene

Packed = npt.NDArray[np.float32]

SHAPES, PANELS, GLYPHS = 6, 3, 10
REGION = slice(0, 4)
STYLE = 4
PATTERN = slice(5, 9)
"""Angle, period, phase, share."""
COLOURS = slice(9, 15)
NOISE = 15
SHAPE_FIELDS = 10
"""Kind plus one (0 for none), x, y, half width, half height, cosine, sine, red, green, blue."""
FIRST_SHAPE = 16
RECTANGLE_FIELDS = 7
"""x0, y0, x1, y1, red, green, blue; two to a panel: border, then fill."""
FIRST_RECTANGLE = FIRST_SHAPE + SHAPES * SHAPE_FIELDS
RUN_FIELDS = 8
"""Left, top, source pixels to an atlas pixel, width in atlas pixels (0 for none), sharpness, red, green, blue."""
FIRST_RUN = FIRST_RECTANGLE + 2 * PANELS * RECTANGLE_FIELDS
GLYPH_FIELDS = 3
"""First atlas column, x, width in atlas pixels."""
FIRST_GLYPH = FIRST_RUN + PANELS * RUN_FIELDS
FIELDS = FIRST_GLYPH + PANELS * GLYPHS * GLYPH_FIELDS


def whole_pixels(region: Region, width: int, height: int) -> tuple[int, int, int, int]:
    """The box of whole source pixels that the video tools cut for ``region``."""
    x0, x1 = _span(region.x0, region.x1, width)
    y0, y1 = _span(region.y0, region.y1, height)
    return x0, y0, x1, y1


def _span(start: float, stop: float, length: int) -> tuple[int, int]:
    first = min(max(round(start), 0), length - 1)
    return first, min(max(round(stop), first + 1), length)


def pack(scene: Scene, region: Region, atlas: GlyphAtlas) -> Packed:
    """The numbers that render ``region`` of ``scene``: float32 ``[FIELDS]``.

    ValueError for more than six shapes, two signs or ten letters in a line.
    """
    panels = (scene.board, *scene.signs)
    if len(panels) > PANELS or len(scene.shapes) > SHAPES:
        raise ValueError(f"a scene holds at most {PANELS - 1} signs and {SHAPES} shapes to be rendered")
    ground = scene.background
    row: list[float] = [*whole_pixels(region, scene.width, scene.height), ground.style]
    row += (ground.angle_rad, ground.period_px, ground.phase, ground.share)
    row += (*scene.toned(ground.first), *scene.toned(ground.second), scene.noise)
    for shape in scene.shapes:
        row += (shape.kind + 1, shape.x, shape.y, shape.half_width, shape.half_height)
        row += (np.cos(shape.angle_rad), np.sin(shape.angle_rad), *scene.toned(shape.colour))
    row += [0.0] * (FIRST_RECTANGLE - len(row))
    for panel in panels:
        inset = panel.border_px
        x0, y0, x1, y1 = panel.box
        row += (*panel.box, *scene.toned(panel.border)) if inset else [0.0] * RECTANGLE_FIELDS
        row += (x0 + inset, y0 + inset, x1 - inset, y1 - inset, *scene.toned(panel.fill))
    row += [0.0] * (FIRST_RUN - len(row))
    glyphs: list[float] = []
    for panel in panels:
        _pack_run(row, glyphs, scene, panel, atlas)
    row += [0.0] * (FIRST_GLYPH - len(row)) + glyphs
    packed = np.zeros(FIELDS, np.float32)
    packed[: len(row)] = row
    return packed


def _pack_run(row: list[float], glyphs: list[float], scene: Scene, panel: Panel, atlas: GlyphAtlas) -> None:
    run = panel.run
    line = atlas.line(run.text, run.font, run.spacing)
    if len(line.placements) > GLYPHS:
        raise ValueError(f"{run.text!r} has more than {GLYPHS} letters")
    scale = run.cap_px / CAP_PX
    row += (run.x - line.width * scale / 2, run.y + run.cap_px / 2 - BASELINE * scale, scale, line.width)
    row += (sharpness(run.cap_px), *scene.toned(run.colour))
    for spot in line.placements:
        glyphs += (spot.column, spot.x, spot.width)
    glyphs += [0.0] * (GLYPH_FIELDS * (GLYPHS - len(line.placements)))


def stack(packed: Sequence[Packed]) -> Packed:
    """Packed frames of one output size as one array ``[n, FIELDS]``."""
    return np.stack(packed)
