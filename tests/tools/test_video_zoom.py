"""``zoom``: cut from the source frame at the view's own time; crops of crops compose in source pixels."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from keyeloop.runtime.content import Image, Text
from keyeloop.runtime.errors import ToolError
from keyeloop.runtime.evidence import Box, Region, View
from keyeloop.runtime.media import MediaStore
from keyeloop.runtime.views import ViewBook
from keyeloop.runtime.visual_cost import FramePlan, FrameSize
from keyeloop.tools.base import ToolContext
from keyeloop.tools.video.clip import ClipVideo
from keyeloop.tools.video.decoder import Decoder
from keyeloop.tools.video.frames import STATE_KEY
from keyeloop.tools.video.probe import open_source
from keyeloop.tools.video.still import read_still, show_still
from keyeloop.tools.video.zoom import MIN_SIDE_PX, Zoom, pixel_region
from tests.tools.moving_pictures import bar_code, read_bar_code, write_video

WIDTH, HEIGHT = 320, 200


class ThumbnailCost:
    """Clips show thumbnails of 40x24 pixels; stills and crops keep their pixels, tiny ones are doubled."""

    def image(self, width: int, height: int) -> FrameSize:
        factor = 2 if width * height < 400 else 1
        return FrameSize(width * factor, height * factor, 1 + width * height // 1000)

    def frame(self, width: int, height: int, *, max_tokens: int | None = None) -> FrameSize:
        return FrameSize(40, 24, 2)

    def clip(self, width: int, height: int, wanted_frames: int, budget_tokens: int) -> FramePlan:
        return FramePlan(wanted_frames, self.frame(width, height))


def picture() -> NDArray[np.uint8]:
    """Every pixel tells where it is: red is x / 2, green is y, blue is a fine chequer that no thumbnail keeps."""
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    return np.stack([x // 2, y, (x + y) % 2 * 255], axis=2).astype(np.uint8)


def show_map(context: ToolContext) -> Image:
    source = context.inputs["image-1"]
    return show_still(source, read_still(source, context.cost, context.state[STATE_KEY]), context)


@pytest.fixture
async def context(tmp_path: Path) -> AsyncIterator[ToolContext]:
    decoder = Decoder()
    (tmp_path / "map.png").write_bytes(cv2.imencode(".png", picture()[:, :, ::-1])[1].tobytes())
    video = write_video(tmp_path / "board.mp4", [37 * number for number in range(99)], size=(160, 96))
    inputs = {
        "video-1": open_source(video, "video-1", decoder=decoder),
        "image-1": open_source(tmp_path / "map.png", "image-1", decoder=decoder),
    }
    made = ToolContext(inputs, MediaStore(tmp_path / "media"), ViewBook(), ThumbnailCost(), visual_budget_tokens=100)
    made.state[STATE_KEY] = decoder
    yield made
    await Zoom().close(made)
    await ClipVideo().close(made)


async def zoom(context: ToolContext, view: str, box: Any) -> tuple[str, Image]:
    jsonschema.validate({"view": view, "box": box}, dict(Zoom.spec.parameters))
    text, image = await Zoom().call({"view": view, "box": box}, context)
    assert isinstance(text, Text) and isinstance(image, Image)
    return text.text, image


async def test_a_crop_has_the_very_pixels_of_the_source(context: ToolContext) -> None:
    show_map(context)
    text, image = await zoom(context, "f1", [250, 100, 750, 600])
    assert text == "z1: f1 box 250,100,750,600"
    assert image.view == View(
        "z1", "image-1", context.inputs["image-1"].sha256, None, Region(80, 20, 240, 120), parent="f1"
    )
    assert (image.media.width, image.media.height) == (160, 100)
    error = np.abs(context.media.pixels(image.media).astype(int) - picture()[20:120, 80:240])
    assert error.mean() < 2  # what JPEG does; a shift of one pixel turns the chequer over and gives over 80


async def test_a_crop_of_a_crop_is_cut_from_the_source(context: ToolContext) -> None:
    show_map(context)
    await zoom(context, "f1", [500, 500, 1000, 1000])
    text, image = await zoom(context, "z1", [0, 500, 250, 1000])
    assert text == "z2: z1 box 0,500,250,1000"
    assert image.view is not None and image.view.parent == "z1"
    assert image.view.region == Region(160, 150, 200, 200)
    error = np.abs(context.media.pixels(image.media).astype(int) - picture()[150:200, 160:200])
    assert error.mean() < 2


async def test_a_frame_is_cut_at_its_own_time_at_full_size(context: ToolContext) -> None:
    await ClipVideo().call({"video": "video-1", "start_s": 1.5, "end_s": 3.0, "max_frames": 2}, context)
    context.state[STATE_KEY].stop()  # nothing decoded is remembered
    for handle, number in (("f1", 40), ("f2", 81)):
        text, image = await zoom(context, handle, [0, 0, 1000, 500])
        assert image.view is not None and image.view.time_s == pytest.approx(number * 0.037)
        assert text == f"{image.view.handle}: {handle} box 0,0,1000,500 at {number * 0.037:.1f} s"
        assert (image.media.width, image.media.height) == (160, 48)
        pixels = context.media.pixels(image.media)
        assert read_bar_code(pixels) == number
        assert np.abs(pixels.astype(int) - bar_code(number, 160, 48)).mean() < 12


async def test_a_tiny_box_is_widened_and_enlarged(context: ToolContext) -> None:
    show_map(context)
    _, image = await zoom(context, "f1", [999, 999, 1000, 1000])
    assert image.view is not None and image.view.region == Region(312, 192, 320, 200)
    assert (image.media.width, image.media.height) == (16, 16)


@pytest.mark.parametrize(
    ("view", "box", "told"),
    [
        ("f9", [0, 0, 10, 10], "there is no view 'f9'; known views: f1"),
        ("f1", [10, 0, 10, 10], "box 10,0,10,10 of f1 is not x0,y0,x1,y1 with 0 <= x0 < x1 <= 1000"),
        ("f1", [500, 0, 400, 10], "box 500,0,400,10 of f1 is not x0,y0,x1,y1"),
        ("f1", [0, 0, 1001, 10], "box 0,0,1001,10 of f1 is not x0,y0,x1,y1"),
        ("f1", [0, 0, float("nan"), 10], "box must be four numbers x0,y0,x1,y1 from 0 to 1000"),
    ],
)
async def test_what_cannot_be_cut_is_told(view: str, box: list[float], told: str, context: ToolContext) -> None:
    show_map(context)
    with pytest.raises(ToolError) as caught:
        await zoom(context, view, box)
    assert str(caught.value).startswith(told)
    assert [known.handle for known in context.views] == ["f1"]


async def test_a_box_of_the_wrong_length_is_told_even_unchecked(context: ToolContext) -> None:
    show_map(context)
    with pytest.raises(ToolError, match="box must be four numbers"):
        await Zoom().call({"view": "f1", "box": [0, 0, 10]}, context)


async def test_a_crop_that_costs_too_much_is_refused(context: ToolContext) -> None:
    show_map(context)
    context.visual_budget_tokens = 20
    with pytest.raises(ToolError, match=r"^a crop costs 65 picture tokens, 20 are left; answer now$"):
        await zoom(context, "f1", [0, 0, 1000, 1000])


def test_the_schema_is_what_the_model_was_trained_on() -> None:
    spec = Zoom.spec
    assert (spec.name, spec.description) == ("zoom", "Look closer at a box of a view, cut from the source.")
    assert json.dumps(spec.parameters, separators=(",", ":")) == (
        '{"type":"object","properties":{"view":{"type":"string","description":"handle of a view"},'
        '"box":{"type":"array","items":{"type":"number"},"minItems":4,"maxItems":4,'
        '"description":"x0,y0,x1,y1 in 0..1000 of the view"}},"required":["view","box"]}'
    )


sides = st.floats(0, 1000, allow_nan=False).map(lambda side: round(side, 3))


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    x0, x1 = sorted(draw(st.lists(sides, min_size=2, max_size=2, unique=True)))
    y0, y1 = sorted(draw(st.lists(sides, min_size=2, max_size=2, unique=True)))
    return (x0, y0, x1, y1)


@given(
    size=st.tuples(st.integers(1, 4000), st.integers(1, 4000)),
    chain=st.lists(boxes(), min_size=1, max_size=5),
)
def test_crops_of_crops_compose_to_source_pixels(size: tuple[int, int], chain: list[Box]) -> None:
    book = ViewBook()
    view = book.frame("video-1", "0" * 64, 1.0, Region(0, 0, *size))
    for box in chain:
        asked = view.region_of(box)
        region = pixel_region(view, box)
        child = book.crop(view, region)
        inside = view.region
        assert all(side == int(side) for side in (region.x0, region.y0, region.x1, region.y1))
        assert inside.x0 <= region.x0 < region.x1 <= inside.x1 and inside.y0 <= region.y0 < region.y1 <= inside.y1
        for low, high, want_low, want_high, parent_side in (
            (region.x0, region.x1, asked.x0, asked.x1, inside.width),
            (region.y0, region.y1, asked.y0, asked.y1, inside.height),
        ):
            least = min(MIN_SIDE_PX, parent_side)
            assert high - low >= least
            assert low <= want_low + 1e-5 and want_high - 1e-5 <= high, "a part of what was asked for is missing"
            if want_high - want_low >= least:
                assert want_low - low < 1 + 1e-5 and high - want_high < 1 + 1e-5, "more than whole pixels were added"
            else:
                assert high - low <= max(least, want_high - want_low + 2 + 1e-5)
        back = child.region_of((0, 0, 1000, 1000))
        assert (back.x0, back.y0, back.x1, back.y1) == pytest.approx((region.x0, region.y0, region.x1, region.y1))
        view = child
