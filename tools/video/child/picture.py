"""Pixels of one decoded picture: turned upright, cut to a region, resized."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TypeVar, cast

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
SomeSamples = TypeVar("SomeSamples", NDArray[np.uint8], NDArray[np.uint16])


@dataclass(frozen=True)
class Orientation:
    """How a stored frame becomes the displayed one: swap rows with columns first, then flip."""

    swap: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    @classmethod
    def from_matrix(cls, data: bytes) -> Orientation:
        """Read a 3x3 display matrix of 32-bit integers (libavutil/display.h: x' = a x + c y, y' = b x + d y).

        Angles between quarter turns go to the nearest one.
        """
        a, b, _, c, d = struct.unpack_from("=5i", data)
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return cls(False, d < 0, a < 0)
        return cls(True, b < 0, c < 0)

    def apply(self, pixels: SomeSamples) -> SomeSamples:
        """The displayed picture as a view of ``pixels``, height x width x 3."""
        turned = pixels.transpose(1, 0, 2) if self.swap else pixels
        rows, columns = (-1 if self.flip_rows else 1), (-1 if self.flip_columns else 1)
        return turned[::rows, ::columns]


def cut(
    pixels: SomeSamples, shown: tuple[int, int], region: tuple[float, float, float, float], size: tuple[int, int]
) -> SomeSamples:
    """Cut ``region`` out of an upright picture and resize it to ``size`` (width, height).

    ``region`` is in displayed pixels of a picture ``shown`` = (width, height); the stored one may have another size
    (pixels that are not square, a stream that changes its size). Shrinks by area, enlarges by cubic interpolation.
    """
    height, width = pixels.shape[:2]
    scale_x, scale_y = width / shown[0], height / shown[1]
    left, right = _span(region[0] * scale_x, region[2] * scale_x, width)
    top, bottom = _span(region[1] * scale_y, region[3] * scale_y, height)
    part = np.ascontiguousarray(pixels[top:bottom, left:right])
    if (part.shape[1], part.shape[0]) == size:
        return part
    shrinks = size[0] <= part.shape[1] and size[1] <= part.shape[0]
    resized = cv2.resize(part, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return cast(SomeSamples, resized)


def _span(start: float, stop: float, length: int) -> tuple[int, int]:
    first = min(max(round(start), 0), length - 1)
    return first, min(max(round(stop), first + 1), length)
