"""Frames stored as two fields, each a moment of its own: where they disagree, the upper one is shown alone."""

from __future__ import annotations

import cv2
import numpy as np

from keyeloop.tools.video.child.picture import SomeSamples

COMB = 24
"""How far, in 256ths, a line has to stick out from both its neighbours to be a tooth of a comb."""


def woven(pixels: SomeSamples) -> SomeSamples:
    """The picture with its combs filled from the lines above and below; what stands still keeps all its lines."""
    if pixels.shape[0] < 4:
        return pixels
    upper, lower = pixels[0::2], pixels[1::2]
    below = np.concatenate([upper[1:], upper[-1:]])[: lower.shape[0]]
    above = upper[: lower.shape[0]]
    line, over, under = (part.astype(np.int32) for part in (lower, above, below))
    scale = 257 if pixels.dtype == np.uint16 else 1
    out_of_line = (line - over) * (line - under) > (COMB * scale) ** 2
    teeth = np.asarray(out_of_line.any(axis=2), np.uint8)
    comb = np.asarray(cv2.dilate(teeth, np.ones((3, 5), np.uint8)), np.bool_)
    filled = pixels.copy()
    filled[1::2][comb] = ((over + under + 1) // 2)[comb]
    return filled
