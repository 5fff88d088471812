"""Addresses of pictures: which source, which moment, which box in source pixels; crops compose back to the source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from keyeloop.runtime.errors import ToolError

BOX_SCALE = 1000
"""Boxes at the model's edge are integers from 0 to 1000 along each side of the picture they are given in."""


@dataclass(frozen=True)
class Source:
    """A declared input: a video or an image file that a run may look at."""

    name: str
    """What the model calls it, such as ``video-1``."""
    kind: Literal["video", "image"]
    sha256: str
    path: str
    width: int
    """Pixels of a displayed frame."""
    height: int
    duration_s: float | None = None
    """Presentation seconds from the first frame to the end of the last; None for an image."""

    @property
    def whole(self) -> Region:
        """All of the displayed picture."""
        return Region(0, 0, self.width, self.height)


@dataclass(frozen=True)
class Region:
    """A box in source pixels: ``x0 <= x < x1``, ``y0 <= y < y1``, origin at the top left."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def width(self) -> float:
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        return self.y1 - self.y0

    def iou(self, other: Region) -> float:
        """Intersection over union with another box of the same source, from 0 to 1."""
        width = min(self.x1, other.x1) - max(self.x0, other.x0)
        height = min(self.y1, other.y1) - max(self.y0, other.y0)
        if width <= 0 or height <= 0:
            return 0.0
        overlap = width * height
        return overlap / (self.width * self.height + other.width * other.height - overlap)


Box = tuple[float, float, float, float]
"""``(x0, y0, x1, y1)`` in thousandths of a view's sides."""


@dataclass(frozen=True)
class View:
    """What one picture shows: a region of a source at a moment. The handle is the model's name for it."""

    handle: str
    """``f1``, ``f2``, ... for frames, ``z1``, ... for crops, ``p1``, ... for what code drew; unique in a run."""
    source: str
    """Name of the source, such as ``video-1``; ``plot-1`` for what code drew, ``picture-1`` for what a page showed."""
    source_sha256: str
    time_s: float | None
    """Presentation time of the frame that is shown, in seconds; None for an image source."""
    region: Region
    """What is visible, in source pixels."""
    parent: str | None = None
    """Handle of the view this one was cut from."""

    def region_of(self, box: Box) -> Region:
        """Resolve a box given in thousandths of this view to source pixels.

        Raises ToolError where the box is empty, reversed or outside 0..1000.
        """
        x0, y0, x1, y1 = box
        if not (0 <= x0 < x1 <= BOX_SCALE and 0 <= y0 < y1 <= BOX_SCALE):
            raise ToolError(
                f"box {_plain(box)} of {self.handle} is not x0,y0,x1,y1 with 0 <= x0 < x1 <= {BOX_SCALE} "
                f"and 0 <= y0 < y1 <= {BOX_SCALE}"
            )
        width, height = self.region.width / BOX_SCALE, self.region.height / BOX_SCALE
        return Region(
            self.region.x0 + x0 * width,
            self.region.y0 + y0 * height,
            self.region.x0 + x1 * width,
            self.region.y0 + y1 * height,
        )

    def box_of(self, region: Region) -> Box:
        """The inverse of :meth:`region_of`: source pixels to thousandths of this view (not clipped)."""
        return (
            (region.x0 - self.region.x0) * BOX_SCALE / self.region.width,
            (region.y0 - self.region.y0) * BOX_SCALE / self.region.height,
            (region.x1 - self.region.x0) * BOX_SCALE / self.region.width,
            (region.y1 - self.region.y0) * BOX_SCALE / self.region.height,
        )


@dataclass(frozen=True)
class Citation:
    """A claim's support: a moment of a source and, where given, a box in it."""

    source: str
    source_sha256: str
    time_s: float | None
    region: Region | None
    """Box in source pixels; None when the whole frame is meant."""
    handle: str | None
    """The view that was cited, when the answer named one."""
    seen: bool
    """Whether the run really looked at this moment."""
    text: str
    """The citation as the model wrote it."""


def _plain(box: Box) -> str:
    return ",".join(f"{value:g}" for value in box)
