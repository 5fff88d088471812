"""How two pictures differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keyeloop.runtime.content import MediaRef
from keyeloop.runtime.errors import InputError, JournalError
from keyeloop.runtime.media import MediaStore

Box = tuple[int, int, int, int]
VISIBLE = 8
"""Of 255, in any channel: less is the trace of an encoder."""


@dataclass(frozen=True)
class PictureDifference:
    """Two pictures in the same place, with other bytes."""

    one: str
    """sha256 of the first."""
    other: str
    changed: float | None
    """Share of the pixels that differ visibly, from 0 to 1; None where sizes differ or one cannot be read."""
    box: Box | None
    """Around them: x0, y0, x1, y1 in pixels."""
    words: str


def compare_pictures(one: MediaRef, of_one: MediaStore, other: MediaRef, of_other: MediaStore) -> PictureDifference:
    """How ``other`` differs from ``one``, which has other bytes."""

    def told(
        words: str, changed: float | None = None, box: tuple[int, int, int, int] | None = None
    ) -> PictureDifference:
        return PictureDifference(one.sha256, other.sha256, changed, box, words)

    if (one.width, one.height) != (other.width, other.height):
        return told(f"{one.width}x{one.height} pixels and {other.width}x{other.height}")
    try:
        apart = np.abs(of_one.pixels(one).astype(np.int16) - of_other.pixels(other)).max(axis=2)
    except (JournalError, InputError) as error:
        return told(f"cannot be compared: {error}")
    visible = apart > VISIBLE
    share = float(visible.mean())
    if not visible.any():
        return told(f"the same to the eye (at most {int(apart.max())} of 255 apart)", 0.0)
    rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return told(f"{share:.1%} of the pixels differ, within {','.join(map(str, box))}", share, box)
