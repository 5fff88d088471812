"""The tool that looks at frames of a video between two times."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from keyeloop.runtime.content import Image, Part, Text, ToolSpec, Video
from keyeloop.runtime.errors import ToolError
from keyeloop.runtime.evidence import Source
from keyeloop.tools.base import ToolContext
from keyeloop.tools.video.frames import clip_words, close_decoder, find_source, look
from keyeloop.tools.video.wording import past_end_text

DEFAULT_FRAMES = 4

SPEC = ToolSpec(
    "clip_video",
    "Look at frames of a video between two times.",
    {
        "type": "object",
        "properties": {
            "video": {"type": "string", "description": "name of the video"},
            "start_s": {"type": "number", "description": "seconds"},
            "end_s": {"type": "number", "description": "seconds"},
            "max_frames": {"type": "integer", "description": f"default {DEFAULT_FRAMES}"},
        },
        "required": ["video", "start_s", "end_s"],
    },
)
"""keye-tiny is trained on this exact schema: change it only with a new training."""


class ClipVideo:
    """``clip_video(video, start_s, end_s, max_frames)``: evenly spaced frames, each with its true time and a handle."""

    spec = SPEC
    timeout_s = 300.0
    in_order = True

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> tuple[Part, ...]:
        """A line that names every frame and its time, then the frames as one Video part. Raises ToolError."""
        source = find_source(context, str(arguments["video"]), "video")
        start_s, end_s = float(arguments["start_s"]), float(arguments["end_s"])
        max_frames = int(arguments.get("max_frames", DEFAULT_FRAMES))
        end_s = check_span(source, start_s, end_s, max_frames)
        video = await look(context, source, start_s, end_s, max_frames)
        return Text(await clip_words(context, source, _views(video))), video

    async def close(self, context: ToolContext) -> None:
        """End the run's decoder; idempotent."""
        close_decoder(context)


def check_span(source: Source, start_s: float, end_s: float, max_frames: int) -> float:
    """``end_s``, no later than the video's end. Raises ToolError for a span or a number that makes no sense."""
    if not (math.isfinite(start_s) and math.isfinite(end_s)):
        raise ToolError("start_s and end_s must be finite numbers of seconds")
    if start_s < 0:
        raise ToolError(f"start_s {start_s:g} is negative: times count from 0, the first frame")
    if end_s < start_s:
        raise ToolError(f"end_s {end_s:g} is before start_s {start_s:g}: give the earlier time as start_s")
    if max_frames < 1:
        raise ToolError(f"max_frames {max_frames} is too few: ask for at least 1")
    duration_s = source.duration_s or 0.0
    if start_s > duration_s:
        raise ToolError(past_end_text(source.name, duration_s, start_s))
    return min(end_s, duration_s)


def _views(video: Video) -> list[Any]:
    return [frame.view for frame in video.frames if isinstance(frame, Image)]
