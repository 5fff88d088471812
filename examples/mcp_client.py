"""keyeloop's tools for another program: the MCP SDK's own client starts `keyeloop mcp` and looks into a video.

`pip install "keyeloop[mcp]"`, then `python mcp_client.py board.mp4 8`. Any MCP client does the same with the command
`keyeloop mcp --video board.mp4`.
"""

import asyncio
import base64
import sys
from pathlib import Path

from mcp import Client, StdioServerParameters
from mcp.types import ImageContent, TextContent

START = "from keyeloop.agent.cli import main; main()"


async def look(video: str, second: float) -> None:
    """Print the tools, and save the frame of one second beside this script."""
    command = StdioServerParameters(command=sys.executable, args=["-c", START, "mcp", "--video", video])
    async with Client(command) as client:
        print("tools:", *(tool.name for tool in (await client.list_tools()).tools))
        asked = {"video": "video-1", "start_s": second, "end_s": second, "max_frames": 1}
        for block in (await client.call_tool("clip_video", asked)).content:
            if isinstance(block, TextContent):
                print(block.text)
            elif isinstance(block, ImageContent):
                Path("frame.jpg").write_bytes(base64.b64decode(block.data))
                print("saved frame.jpg")


if __name__ == "__main__":
    asyncio.run(look(sys.argv[1], float(sys.argv[2])))
