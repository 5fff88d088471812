"""``keyeloop mcp`` before the SDK's own client, over both transports."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import cv2
import httpx2
import numpy as np
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult, ImageContent, TextContent
from numpy.typing import NDArray

from keyeloop.agent.cli.mcp import _place
from keyeloop.runtime.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
OWN = Path(__file__).with_name("own_tools.py")
BOARD = ROOT / "tools" / "demo_video" / "board.mp4"
SERVE = ["-c", "from keyeloop.agent.cli import main; main()", "mcp", "--video", str(BOARD), "--image"]
TOOLS = [word for name in ("mark", "paint", "divide") for word in ("--tool", f"{OWN}:{name}")]
KEY = "a-key-of-this-test"


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "src")}


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("still") / "still.png"
    cv2.imwrite(str(path), np.full((112, 112, 3), 99, np.uint8))
    return path


@pytest.fixture(scope="module")
def address(still: Path) -> Iterator[str]:
    command = [sys.executable, *SERVE, str(still), *TOOLS, "--http", "0"]
    started = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**environment(), "KEYELOOP_API_KEY": KEY}
    )
    with started as process:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        assert line.startswith("serving clip_video, zoom, python, mark, paint, divide at http://127.0.0.1:")
        yield line.rpartition(" ")[2]
        process.terminate()


@asynccontextmanager
async def client(way: str, address: str, still: Path) -> AsyncIterator[Client]:
    if way == "stdio":
        program = StdioServerParameters(command=sys.executable, args=[*SERVE, str(still), *TOOLS], env=environment())
        async with Client(program) as made:
            yield made
        return
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}) as http,
        Client(streamable_http_client(address, http_client=http)) as made,
    ):
        yield made


def texts(result: CallToolResult) -> list[str]:
    return [block.text for block in result.content if isinstance(block, TextContent)]


def pictures(result: CallToolResult) -> list[NDArray[Any]]:
    data = [base64.b64decode(block.data) for block in result.content if isinstance(block, ImageContent)]
    return [np.asarray(cv2.imdecode(np.frombuffer(one, np.uint8), 1)) for one in data]


@pytest.mark.parametrize("way", ["stdio", "http"])
async def test_a_real_client_lists_and_calls_our_tools(way: str, address: str, still: Path) -> None:
    async with client(way, address, still) as made:
        listed = {one.name: one for one in (await made.list_tools()).tools}
        assert list(listed) == ["clip_video", "zoom", "python", "mark", "paint", "divide"]
        assert listed["mark"].description == "Mark a place."
        assert listed["mark"].input_schema["required"] == ["place"]
        assert "video-1: " in str(made.instructions) and "as view f1" in str(made.instructions)

        clip = await made.call_tool("clip_video", {"video": "video-1", "start_s": 2, "end_s": 20, "max_frames": 2})
        assert not clip.is_error and texts(clip) == [
            "video-1: f2 at 2.0 s, f3 at 20.0 s",
            "f2 at 2.0 s:",
            "f3 at 20.0 s:",
        ]
        first, second = pictures(clip)
        assert first.shape == second.shape and np.abs(first.astype(int) - second).max() > 50
        assert [block.type for block in clip.content] == ["text", "text", "image", "text", "image"]

        zoomed = await made.call_tool("zoom", {"view": "f1", "box": [0, 0, 500, 500]})
        assert len(pictures(zoomed)) == 1 and np.abs(pictures(zoomed)[0].astype(int) - 99).max() < 3

        heard: list[tuple[float, float | None, str | None]] = []

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            heard.append((progress, total, message))

        painted = await made.call_tool("paint", {"shade": 77}, progress_callback=on_progress)
        (square,) = pictures(painted)
        assert (square == 77).all() and heard == [(1, 2, "mixing")]
        assert texts(await made.call_tool("mark", {"place": {"x": 3}})) == ["marked 3 left"]


@pytest.mark.parametrize("way", ["stdio", "http"])
async def test_what_goes_wrong_is_a_result_that_says_what_to_mend(way: str, address: str, still: Path) -> None:
    async with client(way, address, still) as made:
        for name, arguments, heard in (
            ("mark", {"place": {"x": 3, "sied": "left"}}, "Error: mark: place: there is no 'sied'; known: x, side"),
            ("clip_video", {"video": "video-2", "start_s": 0, "end_s": 1}, "there is no video 'video-2'"),
            ("clip_video", {"video": "/etc/passwd", "start_s": 0, "end_s": 1}, "known videos: video-1"),
            ("divide", {"by": 0}, "Error: divide broke down (ZeroDivisionError: division by zero)"),
            ("open", {}, "there is no tool 'open'"),
        ):
            result = await made.call_tool(name, arguments)
            assert result.is_error and heard in " ".join(texts(result))
        assert texts(await made.call_tool("divide", {"by": 2})) == ["0.5"], "and it goes on"


async def test_without_the_key_nothing_is_served(address: str) -> None:
    async with httpx2.AsyncClient() as http:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": KEY}):
            assert (await http.post(address, json={}, headers=headers)).status_code == 401
        strange = {"Authorization": f"Bearer {KEY}", "Host": "evil.example", "Accept": "application/json"}
        assert (await http.post(address, json={}, headers=strange)).status_code in (403, 421)


def test_where_others_could_reach_it_a_key_is_needed() -> None:
    command = [sys.executable, "-c", SERVE[1], "mcp", "--http", "0.0.0.0:0"]
    without = {name: value for name, value in environment().items() if name != "KEYELOOP_API_KEY"}
    ended = subprocess.run(command, capture_output=True, text=True, env=without, timeout=60, check=False)
    assert ended.returncode == 2 and "0.0.0.0 can be reached by others: set KEYELOOP_API_KEY" in ended.stderr
    assert _place("8000") == ("127.0.0.1", 8000) and _place("[::1]:0") == ("::1", 0)
    with pytest.raises(ConfigError, match="write PORT or HOST:PORT"):
        _place("localhost:http")
