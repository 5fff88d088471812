"""Content of the protocol as ours and back: texts, pictures, and clips as pictures with their times."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from keyeloop.runtime.content import Image, Part, Text, Video
from keyeloop.runtime.errors import InputError, ToolError
from keyeloop.runtime.media import MediaStore
from keyeloop.tools.base import ToolContext
from keyeloop.tools.results import MAX_TEXT_CHARS, NOTHING, capped
from keyeloop.tools.video.still import show_untrusted
from keyeloop.tools.video.wording import seconds

if TYPE_CHECKING:
    from mcp.types import CallToolResult, ContentBlock


def to_blocks(parts: Iterable[Part], media: MediaStore) -> list[ContentBlock]:
    """Content for a client of ours; a frame of a clip is its handle and time, then the picture."""
    from mcp.types import ImageContent, TextContent

    blocks: list[ContentBlock] = []

    def show(image: Image) -> None:
        data = base64.b64encode(media.read(image.media.sha256)).decode()
        blocks.append(ImageContent(type="image", data=data, mime_type=image.media.mime))

    for part in parts:
        if isinstance(part, Text):
            blocks.append(TextContent(type="text", text=part.text))
        elif isinstance(part, Image):
            show(part)
        elif isinstance(part, Video):
            for frame in part.frames:
                if frame.view is not None:
                    words = f"{frame.view.handle} at {seconds(frame.view.time_s)}:"
                    blocks.append(TextContent(type="text", text=words))
                show(frame)
    return blocks


async def from_result(result: CallToolResult, context: ToolContext, tool: str) -> tuple[Part, ...]:
    """What a server of others gave back, its pictures decoded in the guarded child, at the model's size.

    Raises ToolError with the server's own words where it reports an error.
    """
    parts = [part for block in result.content for part in await _part(block, context, tool)]
    if result.is_error:
        words = " ".join(part.text for part in parts if isinstance(part, Text))
        raise ToolError(words or f"{tool} reported an error and did not say which")
    if not parts and result.structured_content is not None:
        words = json.dumps(result.structured_content, ensure_ascii=False)
        parts = [Text(capped(words, tool, context, MAX_TEXT_CHARS))]
    return tuple(parts) or (Text(NOTHING),)


async def _part(block: ContentBlock, context: ToolContext, tool: str) -> list[Part]:
    from mcp.types import AudioContent, ImageContent, ResourceLink, TextContent, TextResourceContents

    if isinstance(block, TextContent):
        return [Text(capped(block.text, tool, context, MAX_TEXT_CHARS))]
    if isinstance(block, ImageContent):
        return [await _picture(block.data, context)]
    if isinstance(block, AudioContent):
        return [Text(f"(audio of type {block.mime_type}, which cannot be heard here)")]
    if isinstance(block, ResourceLink):
        return [Text(f"{block.name}: {block.uri}" + (f" ({block.description})" if block.description else ""))]
    inside = block.resource
    if isinstance(inside, TextResourceContents):
        return [Text(f"{inside.uri}:"), Text(capped(inside.text, tool, context, MAX_TEXT_CHARS))]
    if (inside.mime_type or "").startswith("image/"):
        return [Text(f"{inside.uri}:"), await _picture(inside.blob, context)]
    return [Text(f"{inside.uri}: data of type {inside.mime_type or 'unknown'}, which cannot be shown")]


async def _picture(data: str, context: ToolContext) -> Part:
    """The picture, or what was wrong with it: one bad picture does not hide the rest of a result."""
    try:
        return await show_untrusted(base64.b64decode(data, validate=True), context)
    except (InputError, ToolError, binascii.Error) as error:
        return Text(f"(a picture that cannot be shown: {error})")
