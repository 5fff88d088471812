"""The tool that shows two moments of a video side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from keyeloop.runtime.content import Part, Text, ToolSpec
from keyeloop.runtime.errors import ToolError
from keyeloop.runtime.evidence import View
from keyeloop.tools.base import ToolContext
from keyeloop.tools.video.clip import check_span
from keyeloop.tools.video.frames import close_decoder, find_source, turn
from keyeloop.tools.video.layout import drawn, fitting, laid_out, pair
from keyeloop.tools.video.wording import seconds
from keyeloop.tools.video.zoom import pixel_region, read_box

SPEC = ToolSpec(
    "compare",
    "See two moments of a video side by side, all of the frame or the same box of it.",
    {
        "type": "object",
        "properties": {
            "video": {"type": "string", "description": "name of the video"},
            "first_s": {"type": "number", "description": "seconds, shown on the left"},
            "second_s": {"type": "number", "description": "seconds, shown on the right"},
            "box": {
                "type": "array",
                "items": {"type": "number"},
                "minItems": 4,
                "maxItems": 4,
                "description": "x0,y0,x1,y1 in 0..1000 of the frame; default all of it",
            },
        },
        "required": ["video", "first_s", "second_s"],
    },
)


class Compare:
    """``compare(video, first_s, second_s, box)``: the frames on screen at two moments, in one picture."""

    spec = SPEC
    timeout_s = 300.0
    in_order = True

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> tuple[Part, ...]:
        """A line that names both frames and their times, then one Image. Raises ToolError."""
        source = find_source(context, str(arguments["video"]), "video")
        moments = [float(arguments["first_s"]), float(arguments["second_s"])]
        for moment_s in moments:
            check_span(source, moment_s, moment_s, 1)
        whole = View("", source.name, source.sha256, None, source.whole)
        region = pixel_region(whole, read_box(arguments["box"])) if "box" in arguments else source.whole
        async with turn(context):
            plan = fitting(pair((round(region.width), round(region.height))), context)
            frames = await drawn(context, source, plan, moments, region, keys=False)
            if len(frames) < 2:
                raise ToolError(
                    f"{source.name} shows one frame, of {seconds(frames[0].time_s)}, at both moments: "
                    "give times that lie further apart"
                )
            wholes = [context.views.frame(source.name, source.sha256, one.time_s, source.whole) for one in frames]
            views = wholes if region == source.whole else [context.views.crop(one, region) for one in wholes]
            picture = await laid_out(context, plan, frames, views)
        left, right = (f"{view.handle} at {seconds(view.time_s)}" for view in views)
        named = tuple(dict.fromkeys((*wholes, *views)))  # what a crop is cut from is known too
        return Text(f"{source.name}: {left} on the left, {right} on the right"), replace(picture, shows=named)

    async def close(self, context: ToolContext) -> None:
        """End the run's decoder; idempotent."""
        close_decoder(context)
