"""The tool that reads the text in a frame, a crop or a picture, with the place of every line."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keyeloop.runtime.content import Image, Part, Text, ToolSpec
from keyeloop.runtime.errors import InputError, ToolError
from keyeloop.runtime.evidence import BOX_SCALE, Region, Source, View
from keyeloop.runtime.picture import Pixels
from keyeloop.tools.base import ToolContext
from keyeloop.tools.outside import visible
from keyeloop.tools.perception.text_reader import TextLine, TextReader
from keyeloop.tools.video.clip import check_span
from keyeloop.tools.video.frames import close_decoder, cut, decoder_of, find_source, look, source_of, turn
from keyeloop.tools.video.still import read_still, show_still
from keyeloop.tools.video.wording import seconds
from keyeloop.tools.video.zoom import pixel_region, read_box

MAX_CHARS = 6_000
"""Of one result; how many lines are left is told."""
MAX_SIDE_PX = 2_400
"""What is read is cut from the source at its own size, or with its longer side brought to this."""

SPEC = ToolSpec(
    "read_text",
    "Read the text in a view, or in the frame of a video at a time; each line comes with its box.",
    {
        "type": "object",
        "properties": {
            "view": {"type": "string", "description": "handle of a view, or name of a picture"},
            "video": {"type": "string", "description": "name of a video, in place of view"},
            "time_s": {"type": "number", "description": "seconds, with video"},
            "box": {
                "type": "array",
                "items": {"type": "number"},
                "minItems": 4,
                "maxItems": 4,
                "description": "x0,y0,x1,y1 in 0..1000 of the view or frame; default all of it",
            },
        },
        "required": [],
    },
)


class ReadText:
    """``read_text(view, box)`` or ``read_text(video, time_s, box)``: lines of text, each with its citation.

    Text is read from the source's own pixels, not from the smaller picture that the model has. A frame that is named
    by its time is shown too, under a handle of its own.
    """

    spec = SPEC
    timeout_s = 300.0
    in_order = True

    def __init__(self, reader: TextReader | None = None) -> None:
        """``reader`` None is rapidocr; raises ConfigError where that is not installed."""
        if reader is None:
            from keyeloop.tools.perception.rapid import RapidReader

            reader = RapidReader()
        self._reader = reader
        self._turn = threading.Lock()

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> tuple[Part, ...]:
        """A line ``[f1 318,181,678,529] 383 (1.00)`` for each line of text: where it is, and how sure that is.

        Raises ToolError for what cannot be looked at.
        """
        view, shown = await _looked_at(arguments, context)
        region = pixel_region(view, read_box(arguments["box"])) if "box" in arguments else view.region
        source = source_of(context, view)
        width, height = _reading_size(region)
        times = None if view.time_s is None else [view.time_s]
        async with turn(context):
            (one,) = await cut(context, source, times, region, width, height)
        lines = await asyncio.to_thread(self._read, one.pixels)
        placed = [_placed(line, region, (width, height), view) for line in lines]
        what = view.handle if view.time_s is None else f"{view.handle} at {seconds(view.time_s)}"
        if region != view.region:
            what += f", box {','.join(f'{side:g}' for side in arguments['box'])}"
        return Text(_told(f"{source.name}, {what}", [one for one in placed if one])), *shown

    async def close(self, context: ToolContext) -> None:
        """End the run's decoder; idempotent."""
        close_decoder(context)

    def _read(self, pixels: Pixels) -> list[TextLine]:
        with self._turn:
            return list(self._reader.read(np.ascontiguousarray(pixels)))


async def _looked_at(arguments: Mapping[str, Any], context: ToolContext) -> tuple[View, tuple[Image, ...]]:
    """The view that is meant, and the picture that shows it where it is new."""
    if ("view" in arguments) == ("video" in arguments):
        raise ToolError("give either view, or video and time_s")
    if "video" in arguments:
        if "time_s" not in arguments:
            raise ToolError("give time_s, the seconds at which to read")
        source, time_s = find_source(context, str(arguments["video"]), "video"), float(arguments["time_s"])
        check_span(source, time_s, time_s, 1)
        (frame,) = (await look(context, source, time_s, time_s, 1)).frames
        assert isinstance(frame, Image) and frame.view is not None, "what is looked at is a frame with a view"
        return frame.view, (frame,)
    named = str(arguments["view"])
    source_named = context.inputs.get(named)
    if source_named is None:
        return context.views.find(named), ()
    if source_named.kind == "video":
        raise ToolError(f"{named} is a video: give it as video, with time_s")
    return await _still(source_named, context)


async def _still(source: Source, context: ToolContext) -> tuple[View, tuple[Image, ...]]:
    """The view of all of a declared picture: the one that the model has, or a new one."""
    for view in context.views:
        if view.source == source.name and view.region == source.whole:
            return view, ()
    async with turn(context):
        try:
            pixels = await asyncio.to_thread(read_still, source, context.cost, decoder_of(context))
        except InputError as error:
            raise ToolError(str(error)) from None
        image = await asyncio.to_thread(show_still, source, pixels, context)
    assert image.view is not None, "what is shown has a view"
    return image.view, (image,)


def _reading_size(region: Region) -> tuple[int, int]:
    scale = min(1.0, MAX_SIDE_PX / max(region.width, region.height))
    return max(1, round(region.width * scale)), max(1, round(region.height * scale))


def _placed(line: TextLine, region: Region, size: tuple[int, int], view: View) -> str:
    """A line as the model reads it; nothing for one without text or place."""
    across, down = region.width / size[0], region.height / size[1]
    x0, y0, x1, y1 = line.box
    found = Region(region.x0 + x0 * across, region.y0 + y0 * down, region.x0 + x1 * across, region.y0 + y1 * down)
    sides = [min(BOX_SCALE, max(0.0, side)) for side in view.box_of(found)]
    left, top, right, bottom = *map(math.floor, sides[:2]), *map(math.ceil, sides[2:])
    text = " ".join(visible(line.text).split())
    if not text or left >= right or top >= bottom:
        return ""
    return f"[{view.handle} {left},{top},{right},{bottom}] {text} ({line.confidence:.2f})"


def _told(head: str, lines: Sequence[str]) -> str:
    if not lines:
        return f"{head}: no text"
    kept, size = list[str](), 0
    for line in lines:
        size += len(line) + 1
        if kept and size > MAX_CHARS:
            kept.append(f"({len(lines) - len(kept)} more lines: ask again with a smaller box)")
            break
        kept.append(line[:MAX_CHARS])
    return "\n".join([f"{head}:", *kept])
