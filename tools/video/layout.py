"""Several frames in one picture for the model: each labelled with its handle and time, all of it within the budget."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from keyeloop.runtime.content import Image
from keyeloop.runtime.errors import InputError, ToolError
from keyeloop.runtime.evidence import Region, Source, View
from keyeloop.runtime.moments import format_time
from keyeloop.tools.base import ToolContext
from keyeloop.tools.results import fit_picture
from keyeloop.tools.video.decoder import Cut
from keyeloop.tools.video.frames import cut
from keyeloop.tools.video.sheet import GAP_PX, LABEL_PX, LEAST_SIDE_PX, SheetPlan, draw_sheet, label_width, plan_sheet

SIDES_PX = (1792, 1344, 1008, 756, 560, 420, 308)
"""Longest sides that a laid out picture may have; the first is taken that the model takes as it is."""
NEARLY = 0.9
"""A picture that the model shrinks less than this keeps its labels readable."""

Plan = Callable[[int], SheetPlan]


def grid(frames: int, size: tuple[int, int]) -> Plan:
    """Rows of frames of ``size``, as the longest side allows."""
    return lambda side_px: plan_sheet(frames, size, side_px, _LONGEST)


def pair(size: tuple[int, int]) -> Plan:
    """Two frames of ``size`` beside one another."""

    def plan(side_px: int) -> SheetPlan:
        wide = (side_px - GAP_PX) // 2 - GAP_PX
        high = side_px - 2 * GAP_PX - LABEL_PX
        scale = min(1.0, wide / size[0], high / size[1])
        width, height = int(size[0] * scale), int(size[1] * scale)
        if min(width, height) < min(LEAST_SIDE_PX, *size):
            raise InputError(f"two frames of {size[0]}x{size[1]} px do not fit {side_px} px side by side")
        return SheetPlan(2, 1, width, height, max(width, label_width(_LONGEST)))

    return plan


_LONGEST = "f999 0:00:00.000"


def fitting(plan: Plan, context: ToolContext) -> SheetPlan:
    """The largest plan that the model takes without shrinking it much. Raises ToolError where nothing fits."""
    small: SheetPlan | None = None
    for side_px in SIDES_PX:
        try:
            made = plan(side_px)
            size = context.cost.image(*made.size)
        except InputError:
            continue
        if size.tokens <= context.visual_budget_tokens:
            if size.width >= NEARLY * made.size[0]:
                return made
            small = made
    if small is None:
        raise ToolError(
            f"no such picture fits the {context.visual_budget_tokens} picture tokens that are left: "
            "ask for fewer frames, or look with clip_video"
        )
    return small


async def drawn(
    context: ToolContext, source: Source, plan: SheetPlan, times_s: Sequence[float], region: Region, *, keys: bool
) -> tuple[Cut, ...]:
    """The frames of a plan at its size; with ``keys`` the key frames before those moments."""
    return await cut(context, source, times_s, region, plan.frame_width, plan.frame_height, key_frames=keys)


async def laid_out(context: ToolContext, plan: SheetPlan, frames: Sequence[Cut], views: Sequence[View]) -> Image:
    """One stored picture of all frames, at the model's size, which names its views."""
    labels = [f"{view.handle} {format_time(view.time_s or 0.0)}" for view in views]
    sheet = draw_sheet(plan, [(label, one.pixels) for label, one in zip(labels, frames, strict=True)])
    made = await asyncio.to_thread(fit_picture, sheet, context)
    return Image(made.media, None, tuple(views))
