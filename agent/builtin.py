"""The tools that a model gets when none are named."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from keyeloop.runtime.evidence import Source
from keyeloop.tools.base import Tool
from keyeloop.tools.search.tool import web_search
from keyeloop.tools.toolset import Toolset
from keyeloop.tools.video.clip import ClipVideo
from keyeloop.tools.video.zoom import Zoom


def builtin_tools(sources: Iterable[Source], documents: Path | None) -> Toolset:
    """``clip_video`` where there is a video, ``zoom``, ``python``, and ``web_search`` where there are documents."""
    from keyeloop.tools.python import Python

    kinds = {source.kind for source in sources}
    tools: list[Tool] = [ClipVideo()] if "video" in kinds else []
    if kinds:
        tools.append(Zoom())
    tools.append(Python())
    if documents is not None:
        tools.append(web_search)
    return Toolset(tools)
