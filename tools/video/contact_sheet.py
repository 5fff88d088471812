"""The tool that shows much of a video in one picture: a grid of small frames, each with its handle and time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keyeloop.runtime.content import Part, Text, ToolSpec
from keyeloop.tools.base import ToolContext
from keyeloop.tools.video.clip import check_span
from keyeloop.tools.video.frames import clip_words, close_decoder, find_source, spaced, turn
from keyeloop.tools.video.layout import drawn, fitting, grid, laid_out

DEFAULT_FRAMES = 12
MAX_FRAMES = 48
KEY_STEP_S = 10.0
"""Frames this far apart are key frames, which cost the decoding of one frame each, if the video has enough of them."""

SPEC = ToolSpec(
    "contact_sheet",
    "See much of a video at once: a grid of small frames, each labelled with its handle and time.",
    {
        "type": "object",
        "properties": {
            "video": {"type": "string", "description": "name of the video"},
            "start_s": {"type": "number", "description": "seconds, default 0"},
            "end_s": {"type": "number", "description": "seconds, default the end"},
            "max_frames": {"type": "integer", "description": f"default {DEFAULT_FRAMES}, at most {MAX_FRAMES}"},
        },
        "required": ["video"],
    },
)


class ContactSheet:
    """``contact_sheet(video, start_s, end_s, max_frames)``: evenly spread frames as one labelled picture.

    Over a long span the frames are the key frames before the moments asked for; every label is the frame's own time.
    """

    spec = SPEC
    timeout_s = 300.0
    in_order = True

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> tuple[Part, ...]:
        """A line that names every frame and its time, then the grid as one Image. Raises ToolError."""
        source = find_source(context, str(arguments["video"]), "video")
        start_s = float(arguments.get("start_s", 0.0))
        end_s = float(arguments.get("end_s", source.duration_s or 0.0))
        wanted = int(arguments.get("max_frames", DEFAULT_FRAMES))
        end_s = check_span(source, start_s, end_s, wanted)
        count = 1 if start_s == end_s else min(wanted, MAX_FRAMES)
        moments = spaced(start_s, end_s, count)
        size = (source.width, source.height)
        async with turn(context):
            plan = fitting(grid(count, size), context)
            keys = count > 1 and (end_s - start_s) / (count - 1) >= KEY_STEP_S
            frames = await drawn(context, source, plan, moments, source.whole, keys=keys)
            if keys and len(frames) <= count // 2:  # too few key frames to see much
                frames = await drawn(context, source, plan, moments, source.whole, keys=False)
            if len(frames) < count:
                plan = fitting(grid(len(frames), size), context)
                again = [one.time_s or 0.0 for one in frames]
                frames = await drawn(context, source, plan, again, source.whole, keys=False)
            views = [context.views.frame(source.name, source.sha256, one.time_s, source.whole) for one in frames]
            picture = await laid_out(context, plan, frames, views)
        return Text(await clip_words(context, source, views)), picture

    async def close(self, context: ToolContext) -> None:
        """End the run's decoder; idempotent."""
        close_decoder(context)
