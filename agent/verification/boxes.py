"""What the four numbers of a box may mean, tried on boxes whose truth is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from keyeloop.runtime.evidence import BOX_SCALE, Box, Region

OURS = "x0,y0,x1,y1 in thousandths"
FITS = 0.3
"""Mean overlap with the truth from which a reading is believed."""
CLEARLY = 0.1
"""How much better another reading than ours has to fit."""


@dataclass(frozen=True)
class Drawn:
    """A box as a model wrote it, and where it should be. All about one picture, of which ``whole`` is the region."""

    box: Box
    whole: Region
    truth: Region


def _scaled(whole: Region, x0: float, y0: float, x1: float, y1: float, wide: float, high: float) -> Region:
    """A box whose sides count ``wide`` and ``high`` units across the picture."""
    width, height = whole.width / wide, whole.height / high
    return Region(whole.x0 + x0 * width, whole.y0 + y0 * height, whole.x0 + x1 * width, whole.y0 + y1 * height)


def _pixels(one: Drawn) -> Region:
    x0, y0, x1, y1 = one.box
    return _scaled(one.whole, x0, y0, x1, y1, one.whole.width, one.whole.height)


def _thousandths(one: Drawn) -> Region:
    x0, y0, x1, y1 = one.box
    return _scaled(one.whole, x0, y0, x1, y1, BOX_SCALE, BOX_SCALE)


def _swapped(one: Drawn) -> Region:
    y0, x0, y1, x1 = one.box
    return _scaled(one.whole, x0, y0, x1, y1, BOX_SCALE, BOX_SCALE)


def _sized(one: Drawn) -> Region:
    x0, y0, width, height = one.box
    return _scaled(one.whole, x0, y0, x0 + width, y0 + height, BOX_SCALE, BOX_SCALE)


def _parts(one: Drawn) -> Region:
    x0, y0, x1, y1 = one.box
    return _scaled(one.whole, x0, y0, x1, y1, 1, 1)


READINGS: Mapping[str, Callable[[Drawn], Region]] = {
    OURS: _thousandths,
    "y0,x0,y1,x1 in thousandths": _swapped,
    "x0,y0,width,height in thousandths": _sized,
    "x0,y0,x1,y1 in pixels of the source": _pixels,
    "x0,y0,x1,y1 in parts of 1": _parts,
}


def best_reading(drawn: Sequence[Drawn]) -> tuple[str | None, float]:
    """The reading that fits, ours unless another fits clearly better, and its mean overlap; None where none fits."""
    fits = {name: _mean(reading, drawn) for name, reading in READINGS.items()}
    best = max(fits, key=lambda name: fits[name])
    if fits[best] < fits[OURS] + CLEARLY:
        best = OURS
    return (best if fits[best] >= FITS else None), fits[best]


def _mean(reading: Callable[[Drawn], Region], drawn: Sequence[Drawn]) -> float:
    overlaps = []
    for one in drawn:
        region = reading(one)
        sound = region.width > 0 and region.height > 0
        overlaps.append(region.iou(one.truth) if sound else 0.0)
    return sum(overlaps) / len(overlaps) if overlaps else 0.0
