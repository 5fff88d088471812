"""What the model can do: typed Python functions, video, search, code.

``from keyeloop.tools import ClipVideo, Zoom, Python, web_search`` gives the built-in tools, to be offered beside one's
own; each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if not __name__.startswith("keyeloop."):
    raise ImportError(f"import keyeloop.{__name__}, not {__name__}: two copies of a class never compare equal")

if TYPE_CHECKING:
    from keyeloop.tools.base import Progress as Progress
    from keyeloop.tools.base import Tool as Tool
    from keyeloop.tools.base import ToolContext as ToolContext
    from keyeloop.tools.decorate import tool as tool
    from keyeloop.tools.mcp.client import McpServer as McpServer
    from keyeloop.tools.pages.tool import OpenPage as OpenPage
    from keyeloop.tools.perception.listen import Listen as Listen
    from keyeloop.tools.perception.listener import Heard as Heard
    from keyeloop.tools.perception.listener import Listener as Listener
    from keyeloop.tools.perception.read_text import ReadText as ReadText
    from keyeloop.tools.perception.text_reader import TextLine as TextLine
    from keyeloop.tools.perception.text_reader import TextReader as TextReader
    from keyeloop.tools.python import Python as Python
    from keyeloop.tools.read_artifact import read_artifact as read_artifact
    from keyeloop.tools.search.tool import web_search as web_search
    from keyeloop.tools.search.web import WebSearch as WebSearch
    from keyeloop.tools.toolset import Toolset as Toolset
    from keyeloop.tools.video.clip import ClipVideo as ClipVideo
    from keyeloop.tools.video.compare import Compare as Compare
    from keyeloop.tools.video.contact_sheet import ContactSheet as ContactSheet
    from keyeloop.tools.video.excerpt import cut_clip as cut_clip
    from keyeloop.tools.video.transcript import Transcript as Transcript
    from keyeloop.tools.video.zoom import Zoom as Zoom

_HOMES = {
    "ClipVideo": "video.clip",
    "Compare": "video.compare",
    "ContactSheet": "video.contact_sheet",
    "Heard": "perception.listener",
    "Listen": "perception.listen",
    "Listener": "perception.listener",
    "McpServer": "mcp.client",
    "OpenPage": "pages.tool",
    "Progress": "base",
    "Python": "python",
    "ReadText": "perception.read_text",
    "TextLine": "perception.text_reader",
    "TextReader": "perception.text_reader",
    "Tool": "base",
    "ToolContext": "base",
    "Toolset": "toolset",
    "Transcript": "video.transcript",
    "WebSearch": "search.web",
    "Zoom": "video.zoom",
    "cut_clip": "video.excerpt",
    "read_artifact": "read_artifact",
    "tool": "decorate",
    "web_search": "search.tool",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
