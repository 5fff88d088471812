"""The tools over a board video that exists only as data: the same words and addresses as the real tools give."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from keyeloop.model_backend.keye.cost import KEYE_TINY_LIMITS, KeyeVisualCost
from keyeloop.runtime.content import Image, MediaRef, Part, Text, Video
from keyeloop.runtime.errors import ToolError
from keyeloop.runtime.evidence import Region, View
from keyeloop.runtime.views import ViewBook
from keyeloop.tools.demo_video.timeline import BoardVideo
from keyeloop.tools.video.wording import clip_text, past_end_text, zoom_text
from training.keye_tiny.sample import Shown

WIDTH, HEIGHT = 1280, 720
COST = KeyeVisualCost(KEYE_TINY_LIMITS)
FRAME_SIZE = COST.frame(WIDTH, HEIGHT)[:2]
"""Width and height of a clip's frame."""
NAME = "video-1"
ARITHMETIC = re.compile(r"print\(\s*(-?\d+)\s*([-+*])\s*(-?\d+)\s*\)")


class World:
    """One video, its views so far, and how each of them looks."""

    def __init__(self, video: BoardVideo) -> None:
        self.video = video
        self.views = ViewBook()
        self.shown: dict[str, Shown] = {}

    def call(self, name: str, arguments: Mapping[str, Any], shake: Region | None = None) -> tuple[Part, ...]:
        """Answer a call of a built-in tool. ``shake`` moves the pixels of a crop, not its address."""
        if name == "clip_video":
            return self._clip(arguments)
        if name == "zoom":
            return self._zoom(arguments, shake)
        if name == "python":
            return (Text(compute(str(arguments["code"]))),)
        raise ToolError(f"there is no tool {name!r}")

    def _clip(self, arguments: Mapping[str, Any]) -> tuple[Part, ...]:
        if arguments["video"] != NAME:
            raise ToolError(f"there is no video {arguments['video']!r}; known: {NAME}")
        start_s, end_s = float(arguments["start_s"]), float(arguments["end_s"])
        if start_s > self.video.duration_s:
            raise ToolError(past_end_text(NAME, self.video.duration_s, start_s))
        count = max(1, min(int(arguments.get("max_frames", 4)), 8))
        step = (end_s - start_s) / (count - 1) if count > 1 else 0.0
        times = sorted({self.video.frame_time(start_s + index * step) for index in range(count)})
        width, height = FRAME_SIZE
        frames: list[Image] = []
        for time_s in times:
            view = self.views.frame(NAME, "", time_s, Region(0, 0, WIDTH, HEIGHT))
            frames.append(self._show(view, Shown(self.video.scene_at(time_s), view.region, width, height)))
        return (Text(clip_text(NAME, [frame.view for frame in frames if frame.view])), Video(tuple(frames)))

    def _zoom(self, arguments: Mapping[str, Any], shake: Region | None) -> tuple[Part, ...]:
        parent = self.views.find(str(arguments["view"]))
        x0, y0, x1, y1 = (float(side) for side in arguments["box"])
        view = self.views.crop(parent, parent.region_of((x0, y0, x1, y1)))
        region = view.region
        width, height = crop_size(region)
        if shake is not None:
            region = Region(*(a + b for a, b in zip(_sides(region), _sides(shake), strict=True)))
        scene = self.video.scene_at(view.time_s or 0.0)
        return (Text(zoom_text(view, (x0, y0, x1, y1))), self._show(view, Shown(scene, region, width, height)))

    def _show(self, view: View, shown: Shown) -> Image:
        self.shown[view.handle] = shown
        return Image(MediaRef("", "image/jpeg", 0, shown.width, shown.height), view)


def crop_size(region: Region) -> tuple[int, int]:
    """Width and height in pixels at which a crop is shown."""
    size = COST.image(max(round(region.width), 1), max(round(region.height), 1))
    return size.width, size.height


def compute(code: str) -> str:
    """What the sandbox prints for the one-line sums that the model learns to write."""
    found = ARITHMETIC.fullmatch(code.strip())
    if not found:
        raise ToolError(f"not run here: {code[:60]}")
    one, operation, two = int(found[1]), found[2], int(found[3])
    return str({"+": one + two, "-": one - two, "*": one * two}[operation])


def _sides(region: Region) -> tuple[float, float, float, float]:
    return (region.x0, region.y0, region.x1, region.y1)
