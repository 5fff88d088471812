"""Contact sheets: many frames in one picture, each above a margin with its handle and time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from keyeloop.runtime.errors import InputError
from keyeloop.runtime.picture import Pixels

GAP_PX = 8
LABEL_PX = 26
"""Height of the margin below each frame that holds its label."""
LEAST_SIDE_PX = 16
_FONT, _SCALE, _BASELINE_PX = cv2.FONT_HERSHEY_SIMPLEX, 0.6, 19
_GROUND, _INK = 24, (230, 230, 230)


class SheetPlan(NamedTuple):
    """A grid of frames. Sizes in pixels; a slot is as wide as the frame or its label, whichever is wider."""

    columns: int
    rows: int
    frame_width: int
    frame_height: int
    slot_width: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the whole sheet."""
        width = GAP_PX + self.columns * (self.slot_width + GAP_PX)
        return width, GAP_PX + self.rows * (self.frame_height + LABEL_PX + GAP_PX)

    def corner(self, index: int) -> tuple[int, int]:
        """Left and top of frame ``index``, counted from 0, row by row."""
        row, column = divmod(index, self.columns)
        top = GAP_PX + row * (self.frame_height + LABEL_PX + GAP_PX)
        return GAP_PX + column * (self.slot_width + GAP_PX), top


def plan_sheet(frames: int, size: tuple[int, int], max_side_px: int, longest_label: str) -> SheetPlan:
    """The grid that shows ``frames`` frames of ``size`` (width, height) largest, neither side over ``max_side_px``.

    Frames are never enlarged. Raises InputError when they do not fit.
    """
    label_px = label_width(longest_label)
    best: tuple[tuple[float, int], SheetPlan] | None = None
    for columns in range(1, frames + 1):
        rows = -(-frames // columns)
        wide = (max_side_px - GAP_PX) // columns - GAP_PX
        high = (max_side_px - GAP_PX) // rows - GAP_PX - LABEL_PX
        scale = min(1.0, wide / size[0], high / size[1])
        width, height = int(size[0] * scale), int(size[1] * scale)
        if wide < label_px or (scale < 1 and min(width, height) < LEAST_SIDE_PX):
            continue
        plan = SheetPlan(columns, rows, width, height, max(width, label_px))
        rank = (-scale, max(plan.size))
        if best is None or rank < best[0]:
            best = rank, plan
    if best is None:
        raise InputError(
            f"a sheet of {frames} frames does not fit {max_side_px} px: ask for fewer --frames, or a larger --max-side"
        )
    return best[1]


def label_width(label: str) -> int:
    """Pixels that a label takes across."""
    return int(cv2.getTextSize(label, _FONT, _SCALE, 1)[0][0])


def draw_sheet(plan: SheetPlan, frames: Sequence[tuple[str, Pixels]]) -> Pixels:
    """Lay out (label, pixels) in the grid, the pixels untouched; labels are ASCII, drawn in the margin below."""
    width, height = plan.size
    sheet = np.full((height, width, 3), _GROUND, np.uint8)
    for index, (label, pixels) in enumerate(frames):
        left, top = plan.corner(index)
        bottom = top + plan.frame_height
        sheet[top:bottom, left : left + plan.frame_width] = pixels
        cv2.putText(sheet, label, (left, bottom + _BASELINE_PX), _FONT, _SCALE, _INK, 1, cv2.LINE_AA)
    return sheet
