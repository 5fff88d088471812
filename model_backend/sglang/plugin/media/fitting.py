"""The size at which a picture is shown, and which frames of a clip: pure numbers, in Keye's arithmetic.

A picture whose sides are multiples of 28 pixels is final: the client has chosen its size, and it is shown as it is.
Anything else is fitted to the model's own limits, or to the budget that came with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from keyeloop.model_backend.keye.cost import KeyeVisualCost, VisionLimits
from keyeloop.model_backend.keye.sizing import FACTOR, PIXELS_PER_TOKEN, plan_video, smart_resize
from keyeloop.model_backend.sglang.plugin.media.asked import MOST_PIXELS, NO_BUDGET, Budget
from keyeloop.runtime.errors import InputError


class Size(NamedTuple):
    """In pixels."""

    width: int
    height: int

    @property
    def tokens(self) -> int:
        """What it costs, once its sides are multiples of 28."""
        return self.width * self.height // PIXELS_PER_TOKEN


class ClipFit(NamedTuple):
    """Frames of a clip by their number, ascending, and the size they share."""

    indices: tuple[int, ...]
    size: Size


def still_fit(size: Size, budget: Budget, limits: VisionLimits) -> Size:
    """The size of a still picture of ``size`` pixels. InputError for one over 200 times longer than wide."""
    if budget == NO_BUDGET:
        if _is_final(size):
            return size
        fitted = KeyeVisualCost(limits).image(*size)
        return Size(fitted.width, fitted.height)
    least = budget.min_pixels or limits.image_min_tokens * PIXELS_PER_TOKEN
    most = budget.max_pixels or limits.image_max_tokens * PIXELS_PER_TOKEN
    return _resized(size, min(least, most), max(least, most) if budget.max_pixels is None else most)


def clip_fit(times_s: Sequence[float], size: Size, budget: Budget, limits: VisionLimits, *, videos: int = 1) -> ClipFit:
    """Frames and size of a clip whose frames are ``size`` pixels at ``times_s``.

    A budget counts as the official server means it: the number of frames first (at ``fps``, from ``min_frames`` to
    ``max_frames``, as many as fit), then the largest size that they can share. The total is the clip's own, else the
    model's, divided among the ``videos`` of a message. Without a budget every frame is shown.

    Raises InputError where the frames do not fit even at the model's smallest size.
    """
    count = len(times_s)
    if budget == NO_BUDGET and _is_final(size):
        return ClipFit(tuple(range(count)), size)
    total = budget.total_pixels or limits.clip_total_tokens * PIXELS_PER_TOKEN
    seconds = times_s[-1] - times_s[0]
    plan = plan_video(
        count,
        (count - 1) / seconds if seconds > 0 else 1.0,
        size.height,
        size.width,
        wanted_fps=budget.fps or math.inf,
        min_frames=budget.min_frames or (2 if budget.fps else count),
        max_frames=budget.max_frames,
        frame_min_pixels=budget.min_pixels or 0,
        frame_max_pixels=max(budget.max_pixels or limits.frame_max_tokens * PIXELS_PER_TOKEN, budget.min_pixels or 0),
        total_pixels=total,
        videos=1 if budget.total_pixels else videos,
        floor_tokens=limits.frame_min_tokens,
    )
    if budget == NO_BUDGET and len(plan.indices) < count:
        raise InputError(f"a clip of {count} frames does not fit {total // PIXELS_PER_TOKEN // videos} visual tokens: "
                         f"send {len(plan.indices)}, or give it max_frames")  # fmt: skip
    return ClipFit(plan.indices, Size(plan.width, plan.height))


def _is_final(size: Size) -> bool:
    whole = not size.width % FACTOR and not size.height % FACTOR
    return whole and 0 < size.width * size.height <= MOST_PIXELS


def _resized(size: Size, least: int, most: int) -> Size:
    height, width = smart_resize(size.height, size.width, min_pixels=least, max_pixels=most)
    return Size(width, height)
