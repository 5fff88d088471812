"""The served model's own arithmetic of picture tokens, as a protocol: tools plan with it and never import a backend."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class FrameSize(NamedTuple):
    """The pixel size a picture is resized to, and what it then costs."""

    width: int
    height: int
    tokens: int


class FramePlan(NamedTuple):
    """How many frames of a clip fit a budget, and at which size."""

    frames: int
    size: FrameSize


class VisualCost(Protocol):
    """Token arithmetic of one model. Sizes are pixels, costs are tokens of the model's context."""

    def image(self, width: int, height: int) -> FrameSize:
        """Size and cost of a still picture of ``width`` x ``height`` source pixels."""

    def frame(self, width: int, height: int, *, max_tokens: int | None = None) -> FrameSize:
        """Size and cost of one frame of a clip; ``max_tokens`` may lower the model's own limit."""

    def clip(self, width: int, height: int, wanted_frames: int, budget_tokens: int) -> FramePlan:
        """The most frames, up to ``wanted_frames``, that fit ``budget_tokens`` with their largest common size."""
