"""Picture sizes and frame budgets, in the published arithmetic. Pure numbers: no pixels, no torch.

Source: ``processors/keye.py`` and ``keye_adaptive_video.py`` of Kwai-Keye/sglang.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from keyeloop.runtime.errors import InputError

FACTOR = 28
"""Sides are multiples of this: patches of 14 pixels, merged 2 x 2."""
PIXELS_PER_TOKEN = FACTOR * FACTOR
MAX_ASPECT = 200
FRAME_MIN_TOKENS = 64
FRAME_MAX_TOKENS = 256
VIDEO_TOTAL_TOKENS = 184_320
VIDEO_FPS = 2.0
_TIERS = ((259.0, 0.09), (518.0, 0.18), (1036.0, 0.36), (2016.0, 0.7))
"""(longest duration in seconds, share of the budget) of the adaptive mode; each share just holds 1 fps at 64 tokens."""


def smart_resize(height: int, width: int, *, min_pixels: float, max_pixels: float) -> tuple[int, int]:
    """(height, width) near the given ones, multiples of 28, with an area between the limits and the aspect kept.

    Raises InputError for an empty picture or one longer than 200 times its width.
    """
    if min(height, width) < 1:
        raise InputError(f"a picture of {width}x{height} pixels is empty")
    if max(height, width) / min(height, width) > MAX_ASPECT:
        raise InputError(f"a picture of {width}x{height} pixels is over {MAX_ASPECT} times longer than wide; crop it")
    new_height = max(FACTOR, round(height / FACTOR) * FACTOR)
    new_width = max(FACTOR, round(width / FACTOR) * FACTOR)
    if new_height * new_width > max_pixels:
        beta = math.sqrt(height * width / max_pixels)
        new_height = max(FACTOR, math.floor(height / beta / FACTOR) * FACTOR)
        new_width = max(FACTOR, math.floor(width / beta / FACTOR) * FACTOR)
    elif new_height * new_width < min_pixels:
        beta = math.sqrt(min_pixels / (height * width))
        new_height = math.ceil(height * beta / FACTOR) * FACTOR
        new_width = math.ceil(width * beta / FACTOR) * FACTOR
    return new_height, new_width


@dataclass(frozen=True)
class VideoPlan:
    """Which frames of a whole video to take, and the size they share."""

    indices: tuple[int, ...]
    """Frame numbers, ascending."""
    times_s: tuple[float, ...]
    """``index / fps``: nominal times, right for constant frame rates only."""
    width: int
    height: int

    @property
    def frame_tokens(self) -> int:
        return self.width * self.height // PIXELS_PER_TOKEN

    @property
    def tokens(self) -> int:
        """Visual tokens of all frames; the time written before each frame comes on top."""
        return self.frame_tokens * len(self.indices)


def plan_video(
    frames: int,
    fps: float,
    height: int,
    width: int,
    *,
    wanted_fps: float = VIDEO_FPS,
    min_frames: int = 2,
    max_frames: int | None = None,
    frame_min_pixels: int = FRAME_MIN_TOKENS * PIXELS_PER_TOKEN,
    frame_max_pixels: int = FRAME_MAX_TOKENS * PIXELS_PER_TOKEN,
    total_pixels: int = VIDEO_TOTAL_TOKENS * PIXELS_PER_TOKEN,
    adaptive: bool = False,
    videos: int = 1,
    floor_tokens: int = FRAME_MIN_TOKENS,
) -> VideoPlan:
    """Plan a whole video of ``frames`` frames at ``fps`` as Keye's own reader does.

    ``total_pixels`` is shared by ``videos`` videos; ``adaptive`` spends less of it on short ones. The count of frames
    comes first (at ``floor_tokens`` each they must fit), then the largest common size; the published search may
    overshoot the budget by less than one token a frame, and so does this one. Raises InputError without frames.
    """
    if frames < 1 or fps <= 0:
        raise InputError(f"a video of {frames} frames at {fps} fps has nothing to show")
    budget = total_pixels / videos
    if adaptive and videos == 1:
        budget *= next((share for longest_s, share in _TIERS if frames / fps <= longest_s), 1.0)
    count = _frame_count(frames, fps, wanted_fps, min_frames, max_frames, budget / (floor_tokens * PIXELS_PER_TOKEN))
    indices = tuple(_linspace(frames - 1, count))
    low_pixels = max(frame_min_pixels, floor_tokens * PIXELS_PER_TOKEN)
    high_pixels = _frame_tokens(count, budget, low_pixels, frame_max_pixels) * PIXELS_PER_TOKEN
    new_height, new_width = smart_resize(height, width, min_pixels=low_pixels, max_pixels=high_pixels)
    return VideoPlan(indices, tuple(index / fps for index in indices), new_width, new_height)


def _frame_count(
    frames: int, fps: float, wanted_fps: float, min_frames: int, max_frames: int | None, fitting_frames: float
) -> int:
    wanted = int(frames / fps * min(wanted_fps, fps))
    fitting = max(1, math.floor(fitting_frames))
    most = min(frames, fitting, frames if max_frames is None else max_frames)
    return min(max(wanted, min_frames), most)


def _frame_tokens(count: int, budget_pixels: float, low_pixels: int, high_pixels: int) -> int:
    """Smallest tokens a frame that exceed the budget for ``count`` frames, or the upper limit."""
    low, high = low_pixels // PIXELS_PER_TOKEN, high_pixels // PIXELS_PER_TOKEN
    while low < high:
        middle = (low + high) // 2
        if count * middle * PIXELS_PER_TOKEN > budget_pixels:
            high = middle
        else:
            low = middle + 1
    return low


def _linspace(last: int, count: int) -> list[int]:
    if count == 1:
        return [0]
    return [round(place * last / (count - 1)) for place in range(count)]
