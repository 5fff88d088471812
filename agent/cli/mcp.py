"""``keyeloop mcp``: the tools, for any client of the Model Context Protocol."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

RESULT_VISUAL_TOKENS = 16_384


def mcp(
    video: Annotated[list[Path] | None, typer.Option(help="A video to look into; may be repeated.")] = None,
    image: Annotated[list[Path] | None, typer.Option(help="A picture to look at; may be repeated.")] = None,
    documents: Annotated[Path | None, typer.Option(help="A folder of documents for web_search.")] = None,
    tool: Annotated[
        list[str] | None, typer.Option(help="A tool of your own, as FILE.py:function; may be repeated.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Serve only tools of such names; may be repeated.")
    ] = None,
    http: Annotated[
        str | None, typer.Option(metavar="[HOST:]PORT", help="Serve over HTTP instead of stdin and stdout.")
    ] = None,
    result_visual_tokens: Annotated[
        int, typer.Option(help="Picture tokens of Keye-VL-2.0 that one result may hold.")
    ] = RESULT_VISUAL_TOKENS,
) -> int:
    """Serve clip_video, zoom, python, web_search and your own tools to an MCP client (the extra mcp).

    Over stdin and stdout the client starts this command; over HTTP it connects to http://HOST:PORT/mcp, and sends
    KEYELOOP_API_KEY where that is set. Only the declared videos, pictures and documents can be looked at.
    """
    from keyeloop.runtime.errors import ConfigError
    from keyeloop.tools.mcp.sdk import require_sdk

    require_sdk()
    if result_visual_tokens < 1:
        raise ConfigError(f"--result-visual-tokens {result_visual_tokens}: give 1 or more")
    place = None if http is None else _place(http)
    try:
        asyncio.run(_serve(video or [], image or [], documents, tool or [], only or [], place, result_visual_tokens))
    except KeyboardInterrupt:
        return 0
    return 0


async def _serve(
    videos: list[Path],
    images: list[Path],
    documents: Path | None,
    named: list[str],
    only: list[str],
    place: tuple[str, int] | None,
    result_visual_tokens: int,
) -> None:
    from keyeloop import __version__
    from keyeloop.agent.builtin import builtin_tools
    from keyeloop.agent.tool_service import ToolService
    from keyeloop.agent.user_tools import load_tools
    from keyeloop.model_backend.keye.cost import KEYE_2_LIMITS, KeyeVisualCost
    from keyeloop.runtime.config import load_config
    from keyeloop.tools.mcp.serving import build_server, serve_http, serve_stdio

    kinds = [*(["video"] if videos else []), *(["image"] if images else [])]
    settings = load_config()
    documents = documents or settings.documents
    tools = builtin_tools(kinds, documents, settings) + load_tools(named)
    if only:
        tools = tools.filtered(*only)
    service = ToolService(
        tools, KeyeVisualCost(KEYE_2_LIMITS), videos=videos, images=images, documents=documents,
        result_visual_tokens=result_visual_tokens,
    )  # fmt: skip
    async with service:
        about = f"Inputs: {'; '.join(service.inputs)}." if service.inputs else "No inputs are declared."
        server = build_server(tools.specs, service.call, service.media, version=__version__, instructions=about)
        names = ", ".join(spec.name for spec in tools.specs)
        if place is None:
            print(f"serving {names} over stdin and stdout", file=sys.stderr)
            await serve_stdio(server)
        else:
            await serve_http(
                server, *place, os.environ.get("KEYELOOP_API_KEY"),
                lambda address: print(f"serving {names} at {address}", flush=True),
            )  # fmt: skip


def _place(text: str) -> tuple[str, int]:
    """Host and port. Raises ConfigError for a port that is none."""
    from keyeloop.runtime.errors import ConfigError

    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"--http {text}: write PORT or HOST:PORT, 0 for any free port")
    return host.strip("[]") or "127.0.0.1", int(port)
