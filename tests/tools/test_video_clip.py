"""``clip_video``: which frames it shows, at which size, under which names, and what it tells of impossible spans."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from keyeloop.runtime.content import Image, Text, Video
from keyeloop.runtime.errors import ToolError
from keyeloop.runtime.evidence import Region
from keyeloop.runtime.media import MediaStore
from keyeloop.runtime.views import ViewBook
from keyeloop.runtime.visual_cost import FramePlan, FrameSize
from keyeloop.tools.base import ToolContext
from keyeloop.tools.video.clip import ClipVideo
from keyeloop.tools.video.decoder import Decoder
from keyeloop.tools.video.frames import STATE_KEY, spaced
from keyeloop.tools.video.probe import open_source
from tests.tools.moving_pictures import read_bar_code, write_video

FRAMES = 250
"""Ten seconds."""


class StepCost:
    """Frames are 80x48 pixels for 15 tokens; one alone may have 160x96 for 60."""

    def image(self, width: int, height: int) -> FrameSize:
        return FrameSize(width, height, -(-width * height // 256))

    def frame(self, width: int, height: int, *, max_tokens: int | None = None) -> FrameSize:
        return FrameSize(80, 48, 15)

    def clip(self, width: int, height: int, wanted_frames: int, budget_tokens: int) -> FramePlan:
        if wanted_frames == 1 and budget_tokens >= 60:
            return FramePlan(1, FrameSize(160, 96, 60))
        return FramePlan(min(wanted_frames, budget_tokens // 15), self.frame(width, height))


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("board") / "board.mp4"
    return write_video(path, [number * 40 for number in range(FRAMES)], options={"bf": "2", "g": "50"})


@pytest.fixture
async def context(board: Path, tmp_path: Path) -> AsyncIterator[ToolContext]:
    decoder = Decoder()
    source = open_source(board, "video-1", decoder=decoder)
    still = open_source(_still(tmp_path), "image-1", decoder=decoder)
    inputs = {"video-1": source, "image-1": still}
    made = ToolContext(inputs, MediaStore(tmp_path / "media"), ViewBook(), StepCost(), visual_budget_tokens=100)
    made.state[STATE_KEY] = decoder
    yield made
    await ClipVideo().close(made)
    assert decoder.pid is None


def _still(folder: Path) -> Path:
    import cv2
    import numpy as np

    (folder / "still.png").write_bytes(cv2.imencode(".png", np.zeros((9, 9, 3), np.uint8))[1].tobytes())
    return folder / "still.png"


async def look(context: ToolContext, **arguments: Any) -> tuple[str, tuple[Image, ...]]:
    arguments = {"video": "video-1", **arguments}
    jsonschema.validate(arguments, dict(ClipVideo.spec.parameters))
    text, video = await ClipVideo().call(arguments, context)
    assert isinstance(text, Text) and isinstance(video, Video)
    return text.text, video.frames


def numbers(context: ToolContext, frames: tuple[Image, ...]) -> list[int]:
    return [read_bar_code(context.media.pixels(frame.media)) for frame in frames]


async def test_frames_are_evenly_spaced_named_and_timed(context: ToolContext) -> None:
    text, frames = await look(context, start_s=2.0, end_s=5.0)
    assert text == "video-1: f1 at 2.0 s, f2 at 3.0 s, f3 at 4.0 s, f4 at 5.0 s"
    assert numbers(context, frames) == [50, 75, 100, 125]
    views = [frame.view for frame in frames]
    source = context.inputs["video-1"]
    assert [view.time_s for view in views if view] == [2.0, 3.0, 4.0, 5.0]
    assert all(view and view.region == Region(0, 0, 160, 96) for view in views)
    assert all(view and (view.source, view.source_sha256) == ("video-1", source.sha256) for view in views)
    assert [context.views.find(f"f{number}") for number in (1, 2, 3, 4)] == views
    assert all((frame.media.width, frame.media.height) == (80, 48) for frame in frames)


async def test_a_frame_bears_its_own_time_not_the_one_asked_for(context: ToolContext) -> None:
    text, frames = await look(context, start_s=1.059, end_s=1.059)
    assert frames[0].view is not None and frames[0].view.time_s == 1.04
    assert text == "video-1: f1 at 1.0 s"
    assert numbers(context, frames) == [26]


async def test_counted_times_are_told_as_such(context: ToolContext, tmp_path: Path) -> None:
    bare = write_video(tmp_path / "bare.h264", list(range(50)), tick=Fraction(1, 25), options={"bf": "2"})
    inputs = {"video-1": open_source(bare, "video-1")}
    text, frames = await look(replace(context, inputs=inputs), start_s=1, end_s=1)
    told = "video-1: its frames bear no times, so they are counted: 25 a second, as the file tells"
    assert text == f"video-1: f1 at 1.0 s\n{told}" and len(frames) == 1


async def test_one_frame_is_the_one_at_the_start(context: ToolContext) -> None:
    _, frames = await look(context, start_s=3.0, end_s=9.0, max_frames=1)
    assert numbers(context, frames) == [75]


async def test_frames_are_distinct_and_fewer_may_be_larger(context: ToolContext) -> None:
    _, two = await look(context, start_s=4.0, end_s=4.07, max_frames=6)
    assert numbers(context, two) == [100, 101] and two[0].media.width == 80
    _, one = await look(context, start_s=4.0, end_s=4.03, max_frames=3)
    assert numbers(context, one) == [100]
    assert (one[0].media.width, one[0].media.height) == (160, 96)


async def test_the_visual_budget_lowers_the_number_of_frames(context: ToolContext) -> None:
    context.visual_budget_tokens = 50
    _, frames = await look(context, start_s=0.0, end_s=8.0, max_frames=9)
    assert numbers(context, frames) == [0, 100, 200]
    context.visual_budget_tokens = 14
    with pytest.raises(ToolError, match=r"^no frame fits the 14 picture tokens that are left; answer now$"):
        await look(context, start_s=0.0, end_s=8.0)


async def test_the_end_of_the_span_may_lie_past_the_end_of_the_video(context: ToolContext) -> None:
    _, frames = await look(context, start_s=9.0, end_s=500.0, max_frames=2)
    assert numbers(context, frames) == [225, FRAMES - 1]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"start_s": 83.0, "end_s": 84.0}, "video-1 ends at 10.0 s; 83.0 s is past its end."),
        ({"start_s": 5.0, "end_s": 4.0}, "end_s 4 is before start_s 5: give the earlier time as start_s"),
        ({"start_s": -1.0, "end_s": 4.0}, "start_s -1 is negative: times count from 0, the first frame"),
        ({"start_s": float("nan"), "end_s": 4.0}, "start_s and end_s must be finite numbers of seconds"),
        ({"start_s": 1.0, "end_s": float("inf")}, "start_s and end_s must be finite numbers of seconds"),
        ({"start_s": 1.0, "end_s": 2.0, "max_frames": 0}, "max_frames 0 is too few: ask for at least 1"),
        ({"video": "v", "start_s": 1.0, "end_s": 2.0}, "there is no video 'v'; known videos: video-1"),
        ({"video": "image-1", "start_s": 1.0, "end_s": 2.0}, "there is no video 'image-1'; known videos: video-1"),
    ],
)
async def test_what_cannot_be_shown_is_told(arguments: dict[str, Any], told: str, context: ToolContext) -> None:
    with pytest.raises(ToolError) as caught:
        await look(context, **arguments)
    assert str(caught.value) == told
    assert list(context.views) == []


async def test_looking_twice_gives_the_same_bytes_under_new_names(context: ToolContext) -> None:
    _, once = await look(context, start_s=2.0, end_s=3.0, max_frames=2)
    _, again = await look(context, start_s=2.0, end_s=3.0, max_frames=2)
    assert [frame.media for frame in once] == [frame.media for frame in again]
    assert [frame.view.handle for frame in (*once, *again) if frame.view] == ["f1", "f2", "f3", "f4"]


async def test_parallel_calls_are_named_in_the_order_of_the_calls(context: ToolContext) -> None:
    spans = [(8.0, 9.0), (0.0, 1.0), (5.0, 6.0)]
    results = await asyncio.gather(*(look(context, start_s=a, end_s=b, max_frames=2) for a, b in spans))
    assert [text for text, _ in results] == [
        "video-1: f1 at 8.0 s, f2 at 9.0 s",
        "video-1: f3 at 0.0 s, f4 at 1.0 s",
        "video-1: f5 at 5.0 s, f6 at 6.0 s",
    ]


async def test_a_file_that_vanished_is_told_without_its_path(context: ToolContext, board: Path) -> None:
    away = board.rename(board.with_suffix(".away"))
    try:
        with pytest.raises(ToolError) as caught:
            await look(context, start_s=1.0, end_s=2.0)
    finally:
        away.rename(board)
    assert str(caught.value).startswith("video-1 does not exist") and str(board) not in str(caught.value)


async def test_a_cancelled_call_stops_its_decoding(context: ToolContext, monkeypatch: pytest.MonkeyPatch) -> None:
    import os
    import signal

    decoder = context.state[STATE_KEY]
    first = decoder.pid
    os.kill(first, signal.SIGSTOP)
    task = asyncio.create_task(look(context, start_s=1.0, end_s=2.0))
    await asyncio.sleep(0.2)
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    text, _ = await look(context, start_s=1.0, end_s=2.0, max_frames=1)
    assert time.monotonic() - began < 20 and decoder.pid != first
    assert text == "video-1: f1 at 1.0 s"


def test_the_schema_is_what_the_model_was_trained_on() -> None:
    spec = ClipVideo.spec
    assert (spec.name, spec.description) == ("clip_video", "Look at frames of a video between two times.")
    assert json.dumps(spec.parameters, separators=(",", ":")) == (
        '{"type":"object","properties":{"video":{"type":"string","description":"name of the video"},'
        '"start_s":{"type":"number","description":"seconds"},"end_s":{"type":"number","description":"seconds"},'
        '"max_frames":{"type":"integer","description":"default 4"}},"required":["video","start_s","end_s"]}'
    )


def test_moments_are_spread_from_the_first_to_the_last() -> None:
    assert spaced(1.0, 9.0, 1) == (1.0,)
    assert spaced(1.0, 9.0, 2) == (1.0, 9.0)
    assert spaced(1.0, 9.0, 5) == (1.0, 3.0, 5.0, 7.0, 9.0)
