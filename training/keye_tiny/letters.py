"""Where the letters of a picture stand, for a training-only head that names the letters in every visual token."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from keyeloop.tools.demo_video.glyphs import CAP_PX, CHARACTERS, GlyphAtlas
from training.keye_tiny.packing import whole_pixels
from training.keye_tiny.sample import Shown

SIDE = 28
"""Pixels along a side of a token's cell."""
HALVES = 2
"""A cell's left and right half are labelled apart, so that two letters in it keep their order."""
PLACES = 10
"""A letter's place in its line is a label too; later letters share the last."""
SMALL = len(CHARACTERS) + PLACES
"""The label of a half cell with letters of a line too small to be read there."""
CLASSES = SMALL + 1
LABELS = HALVES * CLASSES
SMALLEST_CAP_PX = 9.0
"""Lines whose capitals are lower in the picture are small."""
_NUMBER = {character: index for index, character in enumerate(CHARACTERS)}


def letter_labels(shown: Shown, atlas: GlyphAtlas) -> npt.NDArray[np.int32]:
    """Labels ``[k, 2]`` of a picture: the visual token, and which of its ``LABELS`` holds.

    A letter belongs to the half cell that its ink's middle is in. The first ``CLASSES`` labels are of the left half.
    """
    x0, y0, x1, y1 = whole_pixels(shown.region, shown.scene.width, shown.scene.height)
    scale_x, scale_y = shown.width / (x1 - x0), shown.height / (y1 - y0)
    columns = shown.width // SIDE
    found: set[tuple[int, int]] = set()
    for panel in (shown.scene.board, *shown.scene.signs):
        run = panel.run
        small = run.cap_px * scale_y < SMALLEST_CAP_PX
        line = atlas.line(run.text, run.font, run.spacing)
        size = run.cap_px / CAP_PX
        left = run.x - line.width * size / 2
        y = (run.y - y0) * scale_y
        for place, (character, spot) in enumerate(zip(run.text, line.placements, strict=True)):
            x = (left + (spot.x + spot.width / 2) * size - x0) * scale_x
            if not (0 <= x < shown.width and 0 <= y < shown.height):
                continue
            token = int(y // SIDE) * columns + int(x // SIDE)
            first = int(x % SIDE >= SIDE / 2) * CLASSES
            if small:
                found.add((token, first + SMALL))
            else:
                found |= {
                    (token, first + _NUMBER[character]),
                    (token, first + len(CHARACTERS) + min(place, PLACES - 1)),
                }
    return np.array(sorted(found), np.int32).reshape(-1, 2)
