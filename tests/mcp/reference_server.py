"""A server made with the SDK alone: over stdin and stdout, or, with the word ``http``, at an address that it prints."""

from __future__ import annotations

import asyncio
import base64
import os
import sys
from typing import Any

import cv2
import numpy as np
import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.types import CallToolResult, EmbeddedResource, ImageContent, TextContent, TextResourceContents

SIDE_PX = 56
server = MCPServer("reference")
seen: list[str] = []


def picture() -> bytes:
    """A PNG with a pixel of its own at every place."""
    rows, columns = np.mgrid[0:SIDE_PX, 0:SIDE_PX]
    done, data = cv2.imencode(".png", np.stack([rows * 4, columns * 4, rows + columns], 2).astype(np.uint8))
    assert done
    return data.tobytes()


@server.tool(structured_output=False)
def add(a: int, b: int) -> str:
    """Add two numbers."""
    return str(a + b)


@server.tool(name="pictures/two", structured_output=False)
def pictures() -> Any:
    """Two pictures, one of them broken, and a resource."""
    good = base64.b64encode(picture()).decode()
    return CallToolResult(
        content=[
            TextContent(type="text", text="look:"),
            ImageContent(type="image", data=good, mime_type="image/png"),
            ImageContent(type="image", data=good[:200] + "!", mime_type="image/png"),
            EmbeddedResource(type="resource", resource=TextResourceContents(uri="note://a", text="a note")),
        ]
    )


@server.tool()
def place(name: str) -> dict[str, Any]:
    """Where something is."""
    return {"name": name, "x": 3}


@server.tool(structured_output=False)
def fail(why: str) -> Any:
    """Report an error."""
    return CallToolResult(content=[TextContent(type="text", text=f"not {why}")], is_error=True)


@server.tool(structured_output=False)
async def count(to: int, context: Context) -> str:
    """Count."""
    for number in range(1, to + 1):
        await context.report_progress(number, to, f"at {number}")
    return "counted"


@server.tool(structured_output=False)
async def sleep(seconds: float) -> str:
    """Sleep; tell whether that was ended."""
    try:
        await asyncio.sleep(seconds)
    except BaseException:
        seen.append("ended")
        raise
    return "slept"


@server.tool(structured_output=False)
def told() -> str:
    """What became of the sleeps."""
    return ",".join(seen) or "nothing"


@server.tool(structured_output=False)
def leave() -> str:
    """End this program."""
    os._exit(3)


if __name__ == "__main__":
    if sys.argv[1:] == ["http"]:
        config = uvicorn.Config(server.streamable_http_app(), host="127.0.0.1", port=0, log_level="error", ws="none")
        listening = config.bind_socket()
        print(f"http://127.0.0.1:{listening.getsockname()[1]}/mcp", flush=True)
        uvicorn.Server(config).run(sockets=[listening])
    else:
        server.run()
