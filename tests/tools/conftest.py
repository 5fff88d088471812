"""What tests of tools share: a run's context with simple token arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from keyeloop.runtime.media import MediaStore
from keyeloop.runtime.views import ViewBook
from keyeloop.runtime.visual_cost import FramePlan, FrameSize
from keyeloop.tools.base import ToolContext
from keyeloop.tools.video.frames import close_decoder


class TileCost:
    """One token a tile of 28 x 28 pixels; sides are rounded up to whole tiles."""

    def image(self, width: int, height: int) -> FrameSize:
        wide, high = -(-width // 28), -(-height // 28)
        return FrameSize(wide * 28, high * 28, wide * high)

    def frame(self, width: int, height: int, *, max_tokens: int | None = None) -> FrameSize:
        return self.image(width, height)

    def clip(self, width: int, height: int, wanted_frames: int, budget_tokens: int) -> FramePlan:
        return FramePlan(wanted_frames, self.image(width, height))


@pytest.fixture
def context(tmp_path: Path) -> Iterator[ToolContext]:
    context = ToolContext({}, MediaStore(tmp_path / "media"), ViewBook(), TileCost(), visual_budget_tokens=100)
    yield context
    close_decoder(context)
