"""Token arithmetic of a Keye model, for tools that plan what to look at."""

from __future__ import annotations

from dataclasses import dataclass

from keyeloop.model_backend.keye.sizing import FACTOR, PIXELS_PER_TOKEN, smart_resize
from keyeloop.runtime.errors import ConfigError, InputError
from keyeloop.runtime.visual_cost import FramePlan, FrameSize


@dataclass(frozen=True)
class VisionLimits:
    """How many tokens a picture may take. A token is 28 x 28 pixels."""

    image_min_tokens: int
    image_max_tokens: int
    frame_min_tokens: int
    frame_max_tokens: int
    clip_total_tokens: int
    """Most visual tokens of one clip."""

    def __post_init__(self) -> None:
        """Raises ConfigError for limits that cross."""
        if not 1 <= self.image_min_tokens <= self.image_max_tokens:
            raise ConfigError(f"image tokens {self.image_min_tokens}..{self.image_max_tokens}: give 1 <= min <= max")
        if not 1 <= self.frame_min_tokens <= self.frame_max_tokens <= self.clip_total_tokens:
            raise ConfigError(f"frame tokens {self.frame_min_tokens}..{self.frame_max_tokens} in clips of "
                              f"{self.clip_total_tokens}: give 1 <= min <= max <= clip total")  # fmt: skip


KEYE_2_LIMITS = VisionLimits(4, 20480, 64, 256, 184_320)
"""Keye-VL-2.0 as served: stills of 4 to 20,480 tokens, frames of 64 to 256, 184,320 a video."""

KEYE_TINY_LIMITS = VisionLimits(48, 64, 48, 48, 720)
"""The embedded model: what it was trained on. A still or a crop is blown up to 48 tokens at least; a frame of 16:9
always takes 45, and a clip holds 16 of them."""


class KeyeVisualCost:
    """:class:`keyeloop.runtime.visual_cost.VisualCost` in Keye's arithmetic, exact for every size."""

    def __init__(self, limits: VisionLimits) -> None:
        self.limits = limits

    def image(self, width: int, height: int) -> FrameSize:
        """Size and cost of a still. Raises InputError for one over 200 times longer than wide."""
        return _fit(width, height, self.limits.image_min_tokens, self.limits.image_max_tokens)

    def frame(self, width: int, height: int, *, max_tokens: int | None = None) -> FrameSize:
        """Size and cost of one frame; ``max_tokens`` lowers the upper limit, and the lower one where it must."""
        most = self.limits.frame_max_tokens if max_tokens is None else min(max_tokens, self.limits.frame_max_tokens)
        if most < 1:
            raise InputError(f"a frame cannot cost {max_tokens} tokens: give max_tokens of 1 or more")
        return _fit(width, height, min(self.limits.frame_min_tokens, most), most)

    def clip(self, width: int, height: int, wanted_frames: int, budget_tokens: int) -> FramePlan:
        """Most frames, then the largest size they can share, in ``budget_tokens`` and the model's own clip limit.

        Frames are only given up once they are at the model's smallest; none fit when even one costs more. The
        few tokens of time text before each frame are not counted.
        """
        budget = min(budget_tokens, self.limits.clip_total_tokens)
        smallest = _fit(width, height, self.limits.frame_min_tokens, self.limits.frame_min_tokens)
        frames = min(wanted_frames, max(0, budget) // smallest.tokens)
        if frames < 1:
            return FramePlan(0, smallest)
        size = self.frame(width, height, max_tokens=budget // frames)
        return FramePlan(frames, max(size, smallest, key=lambda one: one.tokens))


def _fit(width: int, height: int, min_tokens: int, max_tokens: int) -> FrameSize:
    """Published size, then held to ``max_tokens`` where narrow limits or a long shape made it overshoot."""
    most = max_tokens * PIXELS_PER_TOKEN
    tall, wide = smart_resize(height, width, min_pixels=min_tokens * PIXELS_PER_TOKEN, max_pixels=most)
    if tall * wide > most:
        tall, wide = smart_resize(tall, wide, min_pixels=0, max_pixels=most)
    if tall * wide > most:  # one side is a single token already
        tall, wide = min(tall, most // FACTOR), min(wide, most // FACTOR)
    return FrameSize(wide, tall, wide * tall // PIXELS_PER_TOKEN)
