"""The tool that looks closer at a box of a view."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any

from keyeloop.runtime.content import Image, Part, Text, ToolSpec
from keyeloop.runtime.errors import InputError, ToolError
from keyeloop.runtime.evidence import Box, Region, View
from keyeloop.tools.base import ToolContext
from keyeloop.tools.video.frames import close_decoder, cut, source_of, turn
from keyeloop.tools.video.wording import zoom_text

MIN_SIDE_PX = 8
"""A crop has at least this many source pixels a side, where its parent has them."""

SPEC = ToolSpec(
    "zoom",
    "Look closer at a box of a view, cut from the source.",
    {
        "type": "object",
        "properties": {
            "view": {"type": "string", "description": "handle of a view"},
            "box": {
                "type": "array",
                "items": {"type": "number"},
                "minItems": 4,
                "maxItems": 4,
                "description": "x0,y0,x1,y1 in 0..1000 of the view",
            },
        },
        "required": ["view", "box"],
    },
)
"""keye-tiny is trained on this exact schema: change it only with a new training."""


class Zoom:
    """``zoom(view, box)``: a box of a view, cut from the source frame at the view's exact time."""

    spec = SPEC
    timeout_s = 300.0
    in_order = True

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> tuple[Part, ...]:
        """A line that names the crop, its box and its time, then the crop as an Image. Raises ToolError."""
        async with turn(context):
            parent = context.views.find(str(arguments["view"]))
            box = read_box(arguments["box"])
            region = pixel_region(parent, box)
            source = source_of(context, parent)
            try:
                size = context.cost.image(round(region.width), round(region.height))
            except InputError as error:
                raise ToolError(f"{error}; choose a box that is less long") from None
            if size.tokens > context.visual_budget_tokens:
                raise ToolError(
                    f"a crop costs {size.tokens} picture tokens, {context.visual_budget_tokens} are left; answer now"
                )
            times = None if parent.time_s is None else [parent.time_s]
            (one,) = await cut(context, source, times, region, size.width, size.height)
            media = await asyncio.to_thread(context.media.put_image, one.pixels)
            view = context.views.crop(parent, region)
        return Text(zoom_text(view, box)), Image(media, view)

    async def close(self, context: ToolContext) -> None:
        """End the run's decoder; idempotent."""
        close_decoder(context)


def pixel_region(parent: View, box: Box) -> Region:
    """The whole source pixels that a box of a view touches, at least ``MIN_SIDE_PX`` a side, inside the parent.

    Crops of crops compose: the result depends on the parent's region in the source alone. Raises ToolError for a box
    that is empty, reversed or outside 0..1000.
    """
    asked, within = parent.region_of(box), parent.region
    x0, x1 = _pixels(asked.x0, asked.x1, within.x0, within.x1)
    y0, y1 = _pixels(asked.y0, asked.y1, within.y0, within.y1)
    return Region(x0, y0, x1, y1)


def read_box(value: object) -> Box:
    """The box that a model gave. Raises ToolError for anything but four finite numbers."""
    if isinstance(value, list | tuple) and len(value) == 4:
        numbers = [float(side) for side in value]
        if all(math.isfinite(side) for side in numbers):
            return (numbers[0], numbers[1], numbers[2], numbers[3])
    raise ToolError("box must be four numbers x0,y0,x1,y1 from 0 to 1000, in thousandths of the view")


def _pixels(start: float, stop: float, low: float, high: float) -> tuple[float, float]:
    """Round a span outward to whole pixels and widen it about its middle to the least side, within low..high."""
    slack = 1e-6  # a bound that is a whole pixel but for float rounding stays
    first, last = max(math.floor(start + slack), low), min(math.ceil(stop - slack), high)
    missing = min(MIN_SIDE_PX, high - low) - (last - first)
    if missing > 0:
        first = max(low, min(first - missing // 2, high - (last - first) - missing))
        last = first + min(MIN_SIDE_PX, high - low)
    return first, last
