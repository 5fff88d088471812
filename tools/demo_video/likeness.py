"""How much a frame looks like one of a board video: is there a plain panel in it, apart from the frame's edge?

Camera footage and drawn films have plain areas too, but hardly ever one with four straight sides.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from keyeloop.runtime.picture import Pixels

SIZE = (252, 140)
"""Width and height that a frame is looked at in."""
LEAST = 0.85
"""Board videos' first frames are above this, others below: measured by ``training.keye_tiny.footage``."""
FLAT_LEVELS = 6
"""Neighbouring pixels of a plain area differ by no more, in any channel."""
EVEN_LEVELS = 12.0
"""Largest standard deviation of a panel's colour."""
LEAST_AREA = 0.02
LEAST_SIDES_PX = (12, 10)
CANDIDATES = 8
OUTLINE_PX = 2
"""The outline of a panel may be off by a pixel."""


def board_likeness(pixels: Pixels) -> float:
    """From 0 to 1: how much of the outline of the best panel is plain; 0 without any. ``pixels`` are RGB, any size."""
    small = (
        np.ascontiguousarray(pixels)
        if pixels.shape[1::-1] == SIZE
        else cv2.resize(pixels, SIZE, interpolation=cv2.INTER_AREA)
    )
    levels = np.asarray(cv2.bilateralFilter(small, 5, 25, 3), np.int16)  # grain and codec noise go, edges stay
    _, labels, facts, _ = cv2.connectedComponentsWithStats(_flat(levels).astype(np.uint8), connectivity=4)
    largest = sorted(range(1, len(facts)), key=lambda index: -facts[index][cv2.CC_STAT_AREA])
    return max((_panel(levels, labels == index, facts[index]) for index in largest[:CANDIDATES]), default=0.0)


def _flat(levels: Any) -> Any:
    """Which pixels are like all four neighbours."""
    across = np.abs(np.diff(levels, axis=1)).max(2) <= FLAT_LEVELS
    down = np.abs(np.diff(levels, axis=0)).max(2) <= FLAT_LEVELS
    flat = np.ones(levels.shape[:2], np.bool_)
    flat[:, :-1] &= across
    flat[:, 1:] &= across
    flat[:-1] &= down
    flat[1:] &= down
    return flat


def _panel(levels: Any, area: Any, facts: Any) -> float:
    """How much of its bounding box's outline an area covers; 0 at the frame's edge, when small or when uneven."""
    x, y, wide, high = (int(side) for side in facts[:4])
    at_edge = x == 0 or y == 0 or x + wide == SIZE[0] or y + high == SIZE[1]
    if at_edge or wide < LEAST_SIDES_PX[0] or high < LEAST_SIDES_PX[1] or wide * high < LEAST_AREA * SIZE[0] * SIZE[1]:
        return 0.0
    if levels[area].std(0).max() > EVEN_LEVELS:
        return 0.0
    box = area[y : y + high, x : x + wide]
    top, bottom = box[:OUTLINE_PX].max(0), box[-OUTLINE_PX:].max(0)
    left, right = box[:, :OUTLINE_PX].max(1), box[:, -OUTLINE_PX:].max(1)
    return float(np.concatenate((top, bottom, left, right)).mean())
