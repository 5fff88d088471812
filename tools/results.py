"""What a tool returns, as content: records as JSON, arrays and PIL images as pictures of the model's size, lossless."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from pydantic_core import to_jsonable_python

from keyeloop.runtime.content import Image, MediaRef, Part, Text, Video, images_of
from keyeloop.runtime.errors import InputError, JournalError, ToolDefinitionError, ToolError
from keyeloop.runtime.evidence import View
from keyeloop.runtime.media import MediaStore
from keyeloop.runtime.picture import Pixels
from keyeloop.runtime.visual_cost import FrameSize
from keyeloop.tools.artifacts import FOLDER, keep_text
from keyeloop.tools.base import ToolContext
from keyeloop.tools.calling import Pieces

MAX_TEXT_CHARS = 16_000
"""A longer text is cut in its middle, with a note of how much is left out and where all of it is."""
NOTHING = "done"
"""What a model reads when a function returned None."""
_MIN_SIDE_PX = 28
_MAX_ARRAY_ITEMS = 4096


def to_parts(value: Any, context: ToolContext, tool: str, max_chars: int = MAX_TEXT_CHARS) -> tuple[Part, ...]:
    """Content of a returned value: text, number, record, picture, part, or a list that holds any picture or part.

    A text longer than ``max_chars`` is kept whole as an artifact of the run. Raises ToolDefinitionError, naming
    ``tool``, for a value that a model cannot read.
    """
    if isinstance(value, Pieces) or (isinstance(value, list | tuple) and any(_is_content(item) for item in value)):
        context = _shared(value, context)
        return tuple(part for item in value for part in to_parts(item, context, tool, max_chars))
    if isinstance(value, Image):
        return (_at_model_size(value, context),)
    if isinstance(value, Text):
        return (Text(capped(value.text, tool, context, max_chars)),)
    if isinstance(value, Video):
        return (value,)
    pixels = _pixels(value)
    if pixels is not None:
        return (fit_picture(pixels, context),)
    if value is None:
        return (Text(NOTHING),)
    if isinstance(value, str):
        return (Text(capped(value, tool, context, max_chars)),)
    try:
        plain = to_jsonable_python(value, fallback=_plain, inf_nan_mode="constants")
    except (ValueError, TypeError):
        raise ToolDefinitionError(
            f"tool {tool!r} returned {_name(value)}: return text, a number, a list, a dict, a dataclass, an RGB array "
            "of uint8, a PIL image, a figure, or the path of a picture or video"
        ) from None
    return (Text(capped(json.dumps(plain, ensure_ascii=False), tool, context, max_chars)),)


def _shared(items: Iterable[Any], context: ToolContext) -> ToolContext:
    """The context for each of some pictures, which share the budget of their result where it is short."""
    sizes = [pixels.shape[:2] for item in items if (pixels := _pixels(item)) is not None]
    if sum(context.cost.image(width, height).tokens for height, width in sizes) <= context.visual_budget_tokens:
        return context
    return replace(context, visual_budget_tokens=context.visual_budget_tokens // len(sizes))


def fit_picture(pixels: Pixels, context: ToolContext, view: View | None = None) -> Image:
    """Store a picture at the size that the served model takes it, within the budget of one result.

    ``pixels`` are height x width x 3, RGB of uint8. Raises ToolError when no picture fits the budget any more.
    """
    height, width = pixels.shape[:2]
    size = fitting_size(width, height, context)
    if (size.width, size.height) != (width, height):
        shrinks = size.width * size.height < width * height
        way = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        pixels = np.asarray(cv2.resize(pixels, (size.width, size.height), interpolation=way), np.uint8)
    return Image(store_exact(pixels, context.media), view)


def store_exact(pixels: Pixels, media: MediaStore) -> MediaRef:
    """Store a picture without loss, so that a server decodes the very pixels; same pixels, same bytes, same address."""
    done, data = cv2.imencode(".png", np.ascontiguousarray(pixels[:, :, ::-1]))
    if not done:
        raise ToolError(f"a picture of {pixels.shape[1]}x{pixels.shape[0]} pixels could not be encoded")
    return media.put_bytes(data.tobytes())


def capped(text: str, tool: str, context: ToolContext, max_chars: int) -> str:
    """Text whose middle is left out where it is longer than ``max_chars``; all of it is then kept with the run."""
    if len(text) <= max_chars:
        return text
    return shortened(text, max_chars, f"; all of it is in {FOLDER}/{keep_text(text, tool, context)}")


def fitting_size(width: int, height: int, context: ToolContext) -> FrameSize:
    """Size and cost of a picture of ``width`` x ``height`` pixels, smaller where the budget of one result is short.

    Raises ToolError when no picture fits it any more.
    """
    size = context.cost.image(width, height)
    while size.tokens > context.visual_budget_tokens and min(width, height) > _MIN_SIDE_PX:
        width, height = max(1, width * 3 // 4), max(1, height * 3 // 4)
        size = context.cost.image(width, height)
    if size.tokens > context.visual_budget_tokens:
        raise ToolError(
            f"no room for a picture: the smallest takes {size.tokens} tokens, {context.visual_budget_tokens} are left"
        )
    return size


def check_parts(parts: Iterable[Any], media: MediaStore, tool: str) -> None:
    """Look at what a tool gave back before it enters the history, where one bad picture would spoil every later turn.

    Raises ToolDefinitionError, naming ``tool``, for something that is no part, a picture that is not in ``media`` or is
    not as its reference says, and a clip whose frames differ in size or are not in ascending time.
    """
    for part in parts:
        if isinstance(part, Video):
            views = [frame.view for frame in part.frames if frame.view is not None]
            times = [view.time_s for view in views if view.time_s is not None]
            sizes = {(frame.media.width, frame.media.height) for frame in part.frames}
            if len(times) != len(part.frames) or times != sorted(times) or len(sizes) != 1:
                raise ToolDefinitionError(
                    f"tool {tool!r} returned no clip: its frames need one size, and views with ascending times"
                )
        elif not isinstance(part, Text | Image):
            raise ToolDefinitionError(f"tool {tool!r} returned {_name(part)}, which is no content part")
        for image in images_of(part):
            if media.made(image.media):
                continue
            try:
                height, width = media.pixels(image.media).shape[:2]
            except (InputError, JournalError) as error:
                raise ToolDefinitionError(f"tool {tool!r} returned a picture that cannot be shown: {error}") from None
            if (width, height) != (image.media.width, image.media.height):
                raise ToolDefinitionError(
                    f"tool {tool!r} returned a picture of {width}x{height} pixels as one of "
                    f"{image.media.width}x{image.media.height}: take the reference from the media store"
                )


def _at_model_size(image: Image, context: ToolContext) -> Image:
    size = context.cost.image(image.media.width, image.media.height)
    if (size.width, size.height) == (image.media.width, image.media.height):
        return image
    return fit_picture(context.media.pixels(image.media), context, image.view)


def _is_content(value: Any) -> bool:
    return isinstance(value, Text | Image | Video) or _pixels(value) is not None


def _pixels(value: Any) -> Pixels | None:
    """Height x width x 3 of uint8 when the value is a picture: an RGB, RGBA or grey array, or a PIL image."""
    if type(value).__module__.startswith("PIL.") and hasattr(value, "convert"):
        value = np.asarray(value.convert("RGBA"))
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8 or value.ndim not in (2, 3) or 0 in value.shape:
        return None
    if value.ndim == 2:  # shades of grey, if it is no table
        return np.repeat(value[:, :, None], 3, axis=2) if min(value.shape) >= _MIN_SIDE_PX else None
    if value.shape[2] == 3:
        return value
    if value.shape[2] != 4:
        return None
    alpha = value[:, :, 3:].astype(np.uint32)
    return np.asarray((value[:, :, :3] * alpha + 255 * (255 - alpha) + 127) // 255, np.uint8)


def _plain(value: Any) -> Any:
    """For what pydantic does not know: NumPy's numbers and small arrays."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.size <= _MAX_ARRAY_ITEMS and value.dtype.kind in "biuf":
        return value.tolist()
    raise TypeError(_name(value))


def _name(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} with shape {value.shape}"
    return f"a {type(value).__module__}.{type(value).__qualname__}".replace("builtins.", "")


def shortened(text: str, limit_chars: int = MAX_TEXT_CHARS, where: str = "") -> str:
    """Text whose middle is left out, with a note of how much (and ``where``), if longer than ``limit_chars``."""
    if len(text) <= limit_chars:
        return text
    half = limit_chars // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out{where} ...\n{text[-half:]}"
