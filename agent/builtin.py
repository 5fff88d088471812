"""The tools that a model gets when none are named."""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module
from pathlib import Path

from keyeloop.runtime.config import Config
from keyeloop.tools.base import Tool
from keyeloop.tools.toolset import Toolset

OPTIONAL = {
    "compare": "video.compare:Compare",
    "contact_sheet": "video.contact_sheet:ContactSheet",
    "listen": "perception.listen:Listen",
    "read_text": "perception.read_text:ReadText",
    "transcript": "video.transcript:Transcript",
}
"""Built-in tools that a model gets when they are named, and where they live below ``keyeloop.tools``."""
OWN_MODEL = frozenset({"listen"})
"""Those that take the name of a model."""


def optional_tool(name: str) -> Tool | None:
    """The built-in tool of this name that is offered only when it is named; None where there is none.

    Behind a colon stands the model of its own that one needs: ``listen:whisper-small``. Raises ConfigError where what
    it needs is not there.
    """
    name, _, own_model = name.partition(":")
    if name not in OPTIONAL or (own_model and name not in OWN_MODEL):
        return None
    home, _, kind = OPTIONAL[name].partition(":")
    make = getattr(import_module(f"keyeloop.tools.{home}"), kind)
    made: Tool = make(own_model) if own_model else make()
    return made


def builtin_tools(kinds: Collection[str], documents: Path | None = None, settings: Config | None = None) -> Toolset:
    """``clip_video`` where there is a video, ``zoom``, ``python``, and ``web_search`` where there are documents.

    ``kinds`` are the kinds of the sources: ``video``, ``image``. Where ``settings`` name search providers these are
    asked in place of the documents, and pages can be opened.
    """
    from keyeloop.agent.web import web_tools
    from keyeloop.tools.python import Python
    from keyeloop.tools.search.tool import web_search
    from keyeloop.tools.video.clip import ClipVideo
    from keyeloop.tools.video.zoom import Zoom

    tools: list[Tool] = [ClipVideo()] if "video" in kinds else []
    web = [] if settings is None else web_tools(settings, documents)
    if kinds or any(one.spec.name == "open_page" for one in web):  # whose pictures can be zoomed too
        tools.append(Zoom())
    tools.append(Python())
    if documents is not None and not any(one.spec.name == web_search.spec.name for one in web):
        tools.append(web_search)
    return Toolset([*tools, *web])
