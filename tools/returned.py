"""What a Python tool returned, made ready to be shown: encoded pictures, figures and paths of media become content."""

from __future__ import annotations

import asyncio
import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from keyeloop.runtime.content import Text
from keyeloop.runtime.errors import InputError, ToolDefinitionError
from keyeloop.tools.base import ToolContext
from keyeloop.tools.calling import Pieces
from keyeloop.tools.video.frames import decoder_of, look, turn
from keyeloop.tools.video.probe import open_source
from keyeloop.tools.video.still import show_drawn, show_encoded
from keyeloop.tools.video.wording import clip_text

PICTURES = frozenset({".jpeg", ".jpg", ".png", ".webp"})
VIDEOS = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm"})
FRAMES = 8
"""Of a video whose path was returned, spread over all of it, as far as the budget goes."""
MAX_FILE_BYTES = 100_000_000
FIGURE_DPI = 150
_MADE = "made-"
"""How the names of videos begin that a tool made in the run."""


async def show_returned(value: Any, context: ToolContext) -> Any:
    """The value with its media as content parts, also those in a list; everything else as it is.

    Encoded pictures (bytes) and media files are decoded in the guarded child. A figure is stored whole, so that it can
    be zoomed (``p1``); a video becomes an input of the run (``made-1``) and is shown in a few frames. Raises ToolError
    for a damaged picture or no room, InputError for bytes that are no picture, ToolDefinitionError for a path to
    nothing.
    """
    if isinstance(value, list | tuple) and type(value) in (list, tuple, Pieces):
        media = sum(_is_media(item) for item in value)
        if not media:
            return value
        if media > 1:  # they share the budget of the result
            context = replace(context, visual_budget_tokens=context.visual_budget_tokens // media)
        shown: list[Any] = []
        for item in value:
            made = await show_returned(item, context)
            shown += made if isinstance(made, list) and _is_media(item) else [made]
        return Pieces(shown) if isinstance(value, Pieces) else shown
    if isinstance(value, Path):
        return await _show_file(value, context)
    if _is_drawing(value):
        picture = await show_drawn(await asyncio.to_thread(_drawn, value), context)
        return [Text(f"drawn: {picture.view.handle}" if picture.view else "drawn"), picture]
    return await show_encoded(value, context)


def _is_media(value: Any) -> bool:
    return (
        isinstance(value, bytes | bytearray)
        or (isinstance(value, Path) and value.suffix.lower() in PICTURES | VIDEOS)
        or _is_drawing(value)
    )


async def _show_file(path: Path, context: ToolContext) -> Any:
    kind = path.suffix.lower()
    if kind not in PICTURES | VIDEOS:
        return str(path)
    if not path.is_file():
        raise ToolDefinitionError(f"a tool returned the path {path}, and there is no such file: write it first")
    if kind in PICTURES:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ToolDefinitionError(f"a tool returned {path}, a picture of more than {MAX_FILE_BYTES} bytes")
        return [await show_encoded(await asyncio.to_thread(path.read_bytes), context)]
    return await _show_video(path, context)


async def _show_video(path: Path, context: ToolContext) -> list[Any]:
    decoder = decoder_of(context)
    async with turn(context):
        name = f"{_MADE}{1 + sum(known.startswith(_MADE) for known in context.inputs)}"
        try:
            source = await asyncio.to_thread(lambda: open_source(path, name, decoder=decoder))
        except InputError as error:
            raise ToolDefinitionError(f"a tool returned a video that cannot be shown: {error}") from None
        context.inputs[name] = source
    video = await look(context, source, 0.0, source.duration_s or 0.0, FRAMES)
    return [Text(clip_text(name, [frame.view for frame in video.frames if frame.view is not None])), video]


def _is_drawing(value: Any) -> bool:
    """Whether it is a matplotlib figure, or axes of one."""
    module = type(value).__module__
    return module.startswith(("matplotlib.", "mpl_toolkits.")) and (
        hasattr(value, "savefig") or hasattr(value, "get_figure")
    )


def _drawn(value: Any) -> bytes:
    figure = value if hasattr(value, "savefig") else value.get_figure()
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=FIGURE_DPI, facecolor="white")
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close(figure)  # or pyplot would keep every figure of a long run
    return data.getvalue()
