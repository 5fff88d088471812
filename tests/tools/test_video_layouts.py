"""Several frames in one picture: which moments, where they lie, and that every handle in it can be used."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from keyeloop import Agent
from keyeloop.agent.user_tools import load_tool
from keyeloop.model_backend.scripted import ScriptedBackend, call
from keyeloop.runtime.content import Image, Text
from keyeloop.runtime.errors import InputError, ToolError
from keyeloop.runtime.evidence import Region
from keyeloop.runtime.media import MediaStore
from keyeloop.runtime.trajectory import Trajectory
from keyeloop.runtime.views import ViewBook
from keyeloop.tools import ClipVideo, Compare, ContactSheet, Zoom
from keyeloop.tools.base import Tool, ToolContext
from keyeloop.tools.video.decoder import Decoder
from keyeloop.tools.video.frames import STATE_KEY
from keyeloop.tools.video.probe import open_source
from keyeloop.tools.video.sheet import GAP_PX
from tests.tools.conftest import TileCost
from tests.tools.moving_pictures import read_bar_code, write_video

GROUP = 50
"""Frames from one key frame to the next: two seconds."""


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("board") / "board.mp4"
    groups = {"g": str(GROUP), "bf": "2", "x264-params": "scenecut=0"}
    return write_video(path, [number * 40 for number in range(1000)], size=(320, 192), options=groups)


@pytest.fixture
async def context(board: Path, tmp_path: Path) -> AsyncIterator[ToolContext]:
    decoder = Decoder()
    inputs = {"video-1": open_source(board, "video-1", decoder=decoder)}
    made = ToolContext(inputs, MediaStore(tmp_path / "media"), ViewBook(), TileCost(), visual_budget_tokens=4000)
    made.state[STATE_KEY] = decoder
    yield made
    await Compare().close(made)


async def show(tool: Tool, context: ToolContext, **arguments: Any) -> tuple[str, Image]:
    arguments = {"video": "video-1", **arguments}
    jsonschema.validate(arguments, dict(tool.spec.parameters))
    text, picture = await tool.call(arguments, context)
    assert isinstance(text, Text) and isinstance(picture, Image)
    return text.text, picture


def frame_at(context: ToolContext, picture: Image, column: int, row: int, columns: int, rows: int) -> int:
    pixels = context.media.pixels(picture.media)
    height, width = pixels.shape[:2]
    high, wide = height / rows, width / columns
    slot = pixels[round(row * high) + GAP_PX : round((row + 1) * high) - 34, round(column * wide) :]
    return read_bar_code(slot[:, GAP_PX : round(wide) - 2])


async def test_two_moments_lie_side_by_side(context: ToolContext) -> None:
    text, picture = await show(Compare(), context, first_s=2.0, second_s=21.01)
    assert text == "video-1: f1 at 2.0 s on the left, f2 at 21.0 s on the right"
    assert [view.time_s for view in picture.shows] == [2.0, 21.0]
    assert [frame_at(context, picture, column, 0, 2, 1) for column in (0, 1)] == [50, 525]
    assert picture.media.width > 1.5 * picture.media.height


async def test_a_box_is_cut_out_of_both(context: ToolContext) -> None:
    text, picture = await show(Compare(), context, first_s=3.0, second_s=1.0, box=[0, 0, 500, 500])
    assert text == "video-1: z1 at 3.0 s on the left, z2 at 1.0 s on the right"
    assert [view.handle for view in picture.shows] == ["f1", "f2", "z1", "z2"]
    assert picture.shows[2].region == Region(0, 0, 160, 96) and picture.shows[2].parent == "f1"


async def test_a_sheet_of_a_short_span_is_exact(context: ToolContext) -> None:
    text, picture = await show(ContactSheet(), context, start_s=1.0, end_s=4.3, max_frames=4)
    assert text == "video-1: f1 at 1.0 s, f2 at 2.1 s, f3 at 3.2 s, f4 at 4.3 s"
    assert [view.time_s for view in picture.shows] == pytest.approx([1.0, 2.08, 3.2, 4.28])
    shown = [frame_at(context, picture, place % 2, place // 2, 2, 2) for place in range(4)]
    assert shown == [25, 52, 80, 107]


async def test_a_sheet_of_a_long_span_takes_key_frames_and_tells_their_times(context: ToolContext) -> None:
    text, picture = await show(ContactSheet(), context, max_frames=4)
    assert [view.time_s for view in picture.shows] == pytest.approx([0, 12, 26, 38])
    assert text == "video-1: f1 at 0.0 s, f2 at 12.0 s, f3 at 26.0 s, f4 at 38.0 s"
    assert [frame_at(context, picture, place % 2, place // 2, 2, 2) for place in range(4)] == [0, 300, 650, 950]


async def test_a_sheet_of_few_frames_shows_each_once(context: ToolContext) -> None:
    text, picture = await show(ContactSheet(), context, start_s=1.0, end_s=1.05, max_frames=9)
    assert text == "video-1: f1 at 1.0 s, f2 at 1.0 s" and len(picture.shows) == 2


@pytest.mark.parametrize(
    ("tool", "arguments", "told"),
    [
        (Compare(), {"first_s": 2.0, "second_s": 2.01}, "shows one frame, of 2.0 s, at both moments: give times that"),
        (Compare(), {"first_s": 2.0, "second_s": 99.0}, "video-1 ends at 40.0 s; 99.0 s is past its end."),
        (Compare(), {"first_s": 2.0, "second_s": 4.0, "box": [9, 9, 9, 10]}, "is not x0,y0,x1,y1"),
        (ContactSheet(), {"start_s": 9.0, "end_s": 3.0}, "end_s 3 is before start_s 9"),
        (ContactSheet(), {"max_frames": 0}, "max_frames 0 is too few"),
        (ContactSheet(), {"video": "x"}, "there is no video 'x'; known videos: video-1"),
    ],
)
async def test_what_cannot_be_shown_is_told(
    tool: Tool, arguments: dict[str, Any], told: str, context: ToolContext
) -> None:
    with pytest.raises(ToolError, match=told):
        await show(tool, context, **arguments)


async def test_a_small_budget_makes_it_smaller_and_none_refuses(context: ToolContext) -> None:
    context.visual_budget_tokens = 300
    _, picture = await show(ContactSheet(), context)
    assert context.cost.image(picture.media.width, picture.media.height).tokens <= 300
    context.visual_budget_tokens = 3
    with pytest.raises(ToolError, match="no such picture fits the 3 picture tokens that are left"):
        await show(ContactSheet(), context)


async def test_what_a_sheet_showed_can_be_zoomed_cited_and_is_recorded(board: Path, tmp_path: Path) -> None:
    script = ScriptedBackend(
        [
            call("contact_sheet", video="video-1", max_frames=4, end_s=8),
            call("zoom", view="f2", box=[0, 0, 1000, 500]),
            "bars [f2] [z1]",
        ]
    )
    agent = Agent(script, tools=[ClipVideo(), ContactSheet(), Zoom()], runs=tmp_path / "runs")
    answer = await agent.run("What is shown?", video=board)
    assert [(one.handle, one.seen) for one in answer.citations] == [("f2", True), ("z1", True)]
    views = Trajectory.read(answer.run).views()
    assert list(views) == ["f1", "f2", "f3", "f4", "z1"] and views["z1"].time_s == views["f2"].time_s


def test_such_tools_are_offered_when_they_are_named() -> None:
    assert [load_tool(name).spec.name for name in ("compare", "contact_sheet", "transcript")] == [
        "compare",
        "contact_sheet",
        "transcript",
    ]
    with pytest.raises(InputError, match=r"'compares' is not FILE.py:function: .*, or one of compare, contact"):
        load_tool("compares")
