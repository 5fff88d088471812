"""The tools that a model gets when none are named."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from keyeloop.tools.base import Tool
from keyeloop.tools.toolset import Toolset


def builtin_tools(kinds: Collection[str], documents: Path | None = None) -> Toolset:
    """``clip_video`` where there is a video, ``zoom``, ``python``, and ``web_search`` where there are documents.

    ``kinds`` are the kinds of the sources: ``video``, ``image``.
    """
    from keyeloop.tools.python import Python
    from keyeloop.tools.search.tool import web_search
    from keyeloop.tools.video.clip import ClipVideo
    from keyeloop.tools.video.zoom import Zoom

    tools: list[Tool] = [ClipVideo()] if "video" in kinds else []
    if kinds:
        tools.append(Zoom())
    tools.append(Python())
    if documents is not None:
        tools.append(web_search)
    return Toolset(tools)
