"""Results of tools: what a model reads for numbers, records, pictures and parts."""

from __future__ import annotations

import dataclasses
import enum
import threading
from typing import Any

import numpy as np
import PIL.Image
import pytest
from pydantic import BaseModel

from keyeloop.runtime.content import Image, Text, Video
from keyeloop.runtime.errors import InputError, ToolDefinitionError, ToolError
from keyeloop.tools.base import Tool, ToolContext
from keyeloop.tools.decorate import FunctionTool, tool
from keyeloop.tools.results import MAX_TEXT_CHARS
from keyeloop.tools.video.frames import decoder_of


async def text_of(made: Tool, context: ToolContext, **arguments: Any) -> str:
    (part,) = await made.call(arguments, context)
    assert isinstance(part, Text)
    return part.text


class Shelf(enum.Enum):
    TOP = "top"
    LOW = "low"


class Point(BaseModel):
    x: int
    title: str = "here"


@dataclasses.dataclass
class Record:
    name: str
    shelf: Shelf


async def test_a_picture_of_the_store_comes_at_the_models_size(context: ToolContext) -> None:
    stored = Image(context.media.put_image(np.full((30, 50, 3), 200, np.uint8)))
    (shown,) = await returning(stored).call({}, context)
    assert isinstance(shown, Image) and (shown.media.width, shown.media.height) == (56, 56)
    assert (await returning(shown).call({}, context)) == (shown,), "one that fits is left alone"


def returning(value: Any) -> FunctionTool[[], Any]:
    return tool(name="give")(lambda: value)


@pytest.mark.parametrize(
    "value,text",
    [
        ("as it is", "as it is"),
        (417, "417"),
        (True, "true"),
        (0.5, "0.5"),
        (None, "done"),
        ([1, "zwölf"], '[1, "zwölf"]'),
        ({"a": (1, 2)}, '{"a": [1, 2]}'),
        (Record("x", Shelf.TOP), '{"name": "x", "shelf": "top"}'),
        (Point(x=1), '{"x": 1, "title": "here"}'),
        (np.int64(7), "7"),
        (np.arange(3), "[0, 1, 2]"),
        ({"mean": np.float32(0.5)}, '{"mean": 0.5}'),
    ],
)
async def test_plain_results_become_text(context: ToolContext, value: Any, text: str) -> None:
    assert await text_of(returning(value), context) == text


async def test_pictures_take_the_size_the_model_takes_them_in(context: ToolContext) -> None:
    pixels = np.full((50, 100, 3), (200, 30, 10), np.uint8)
    for value in (
        pixels,
        PIL.Image.fromarray(pixels),
        [pixels],
        np.dstack([pixels, np.full((50, 100), 255, np.uint8)]),
    ):
        (part,) = await returning(value).call({}, context)
        assert isinstance(part, Image) and part.view is None
        assert (part.media.width, part.media.height) == (112, 56)
        assert (context.media.pixels(part.media) == (200, 30, 10)).all(), "lossless"


async def test_grey_is_a_picture_and_a_small_table_is_not(context: ToolContext) -> None:
    (part,) = await returning(np.full((56, 84), 7, np.uint8)).call({}, context)
    assert isinstance(part, Image) and (context.media.pixels(part.media) == 7).all()
    assert await text_of(returning(np.ones((2, 3), np.uint8)), context) == "[[1, 1, 1], [1, 1, 1]]"


async def test_pictures_of_one_result_share_its_budget(context: ToolContext) -> None:
    parts = await returning([np.zeros((280, 280, 3), np.uint8)] * 4).call({}, context)
    tokens = [part.media.width * part.media.height // 28**2 for part in parts if isinstance(part, Image)]
    assert len(tokens) == 4 and 0 < sum(tokens) <= context.visual_budget_tokens


async def test_a_large_picture_is_brought_into_the_budget(context: ToolContext) -> None:
    (part,) = await returning(np.zeros((1080, 1920, 3), np.uint8)).call({}, context)
    assert isinstance(part, Image)
    assert 40 < part.media.width * part.media.height / 28**2 <= 100
    context.visual_budget_tokens = 0
    with pytest.raises(ToolError, match="no room for a picture"):
        await returning(np.zeros((1080, 1920, 3), np.uint8)).call({}, context)


async def test_parts_pass_through_and_lists_mix(context: ToolContext) -> None:
    picture = np.zeros((28, 28, 4), np.uint8)
    image = Image(context.media.put_image(picture[:, :, :3].copy()))
    parts = await returning(["see", Text("this"), picture, Video((image,)), {"n": 1}]).call({}, context)
    assert [type(part) for part in parts] == [Text, Text, Image, Video, Text]
    assert isinstance(parts[2], Image)
    assert context.media.pixels(parts[2].media).min() > 250  # transparent over white
    assert parts[4] == Text('{"n": 1}')


async def test_bytes_must_be_a_picture(context: ToolContext) -> None:
    image = context.media.put_image(np.zeros((28, 28, 3), np.uint8))
    (part,) = await returning(context.media.read(image.sha256)).call({}, context)
    assert isinstance(part, Image)
    with pytest.raises(InputError, match="not a picture"):
        await returning(b"hello").call({}, context)
    with pytest.raises(ToolError, match=r"the picture cannot be used: .* is cut short"):
        await returning([context.media.read(image.sha256)[:-9]]).call({}, context)
    assert decoder_of(context).pid is not None, "decoded in the guarded child"


@pytest.mark.parametrize("value", [object(), threading.Lock(), np.zeros((300, 300)), {"x": object()}])
async def test_what_a_model_cannot_read_is_the_developers_error(context: ToolContext, value: Any) -> None:
    with pytest.raises(ToolDefinitionError, match="tool 'give' returned"):
        await returning(value).call({}, context)


async def test_a_long_text_is_cut_in_its_middle(context: ToolContext) -> None:
    text = await text_of(returning("a" * 20_000 + "b" * 20_000), context)
    assert len(text) < MAX_TEXT_CHARS + 100 and text[0] == "a" and text[-1] == "b"
    assert "24000 characters left out" in text
