"""Tools of servers that are not ours, over both transports: a server made with the SDK, and a published one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from keyeloop.agent.agent import Agent
from keyeloop.agent.user_tools import load_tools
from keyeloop.agent.working import Working
from keyeloop.model_backend.scripted import ScriptedBackend, call, calls
from keyeloop.runtime.content import Image, Text
from keyeloop.runtime.errors import ConfigError, OperatorError, ToolError
from keyeloop.runtime.events import Noticed
from keyeloop.runtime.trajectory import Trajectory
from keyeloop.tools.base import Progress, ToolContext
from keyeloop.tools.mcp.client import McpServer
from tests.mcp.reference_server import picture
from tests.tools.conftest import context as context

PROGRAM = [sys.executable, str(Path(__file__).with_name("reference_server.py"))]


@pytest.fixture(scope="module")
def server() -> Iterator[McpServer]:
    with McpServer(PROGRAM) as server:
        yield server


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with subprocess.Popen([*PROGRAM, "http"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


async def test_its_tools_are_ours(server: McpServer, context: ToolContext) -> None:
    tools = server.tools
    assert [spec.name for spec in tools.specs] == [
        "add", "pictures_two", "place", "fail", "count", "sleep", "told", "leave",
    ]  # fmt: skip
    add = tools.find("add").spec
    assert add.description == "Add two numbers."
    assert add.parameters["properties"] == {"a": {"type": "integer"}, "b": {"type": "integer"}}
    assert await tools.find("add").call({"a": 1, "b": 2}, context) == (Text("3"),)
    assert await tools.find("place").call({"name": "x"}, context) == (Text('{\n  "name": "x",\n  "x": 3\n}'),)
    with pytest.raises(ToolError, match=r"^not today$"):
        await tools.find("fail").call({"why": "today"}, context)


async def test_pictures_come_whole_and_a_broken_one_hides_nothing(server: McpServer, context: ToolContext) -> None:
    parts = await server.tools.find("pictures_two").call({}, context)
    words = [part.text if isinstance(part, Text) else type(part).__name__ for part in parts]
    assert words[:2] == ["look:", "Image"] and words[3:] == ["note://a:", "a note"]
    assert words[2].startswith("(a picture that cannot be shown: ")
    expected = np.asarray(cv2.imdecode(np.frombuffer(picture(), np.uint8), 1))[:, :, ::-1]
    assert isinstance(parts[1], Image) and np.array_equal(context.media.pixels(parts[1].media), expected)


async def test_progress_arrives_and_a_call_that_nobody_waits_for_is_ended(
    server: McpServer, context: ToolContext
) -> None:
    heard: list[Progress] = []
    tools = server.tools
    await tools.find("count").call({"to": 2}, replace(context, on_progress=heard.append))
    assert heard == [Progress("at 1", 1, 2), Progress("at 2", 2, 2)]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(tools.find("sleep").call({"seconds": 60}, context), 0.2)
    for _ in range(50):
        if (await tools.find("told").call({}, context)) == (Text("ended"),):
            return
        await asyncio.sleep(0.02)
    pytest.fail("the server was not told")


@pytest.mark.parametrize("way", ["stdio", "http"])
async def test_an_agent_of_ours_uses_them(way: str, server: McpServer, address: str, tmp_path: Path) -> None:
    with McpServer(address) as remote:
        tools = (server if way == "stdio" else remote).tools.prefixed("ref_")
        wanted = calls(("ref_add", {"a": 2, "b": 3}), ("ref_pictures_two", {}), ("ref_count", {"to": 3}))
        backend = ScriptedBackend([wanted, call("ref_add", a="x", b=1), "5"])
        heard = [event async for event in Agent(backend, tools, runs=tmp_path).stream("?")]
    told = [message.text for message in backend.requests[-1].messages if message.role == "tool"]
    assert told[0] == "5" and told[1].startswith("look:") and told[2] == "counted"
    assert told[3] == "Error: ref_add: a: 'x' is not of type 'integer'"
    assert sum(isinstance(part, Image) for message in backend.requests[-1].messages for part in message.parts) == 1
    assert [event.progress.done for event in heard if isinstance(event, Working)] == [1, 2, 3]


async def test_a_server_that_left_is_started_afresh(tmp_path: Path) -> None:
    with McpServer(PROGRAM) as server:
        backend = ScriptedBackend([call("leave"), call("add", a=4, b=4), "8"])
        answer = await Agent(backend, server.tools.filtered("leave", "add"), runs=tmp_path).run("?")
    told = [message.text for message in backend.requests[-1].messages if message.role == "tool"]
    assert told[0].startswith("Error: leave lost its server (Connection closed)") and told[1] == "8"
    notices = [event.text for event in Trajectory.read(answer.run).events if isinstance(event, Noticed)]
    assert len(notices) == 1 and "reference_server.py is gone" in notices[0]


def test_nothing_is_left_behind() -> None:
    with McpServer(PROGRAM) as server:
        thread = server.connect()._thread
        assert thread.is_alive() and len(server.tools) == 8
    assert not thread.is_alive()
    server.close()


def test_a_published_reference_server(tmp_path: Path) -> None:
    with McpServer([sys.executable, "-m", "mcp_server_time"]) as server:
        arguments = {"source_timezone": "Asia/Tokyo", "time": "09:30", "target_timezone": "Asia/Kolkata"}
        backend = ScriptedBackend([call("convert_time", **arguments), "6:00"])
        Agent(backend, server.tools, runs=tmp_path).run_sync("When is 9:30 in Tokyo, in Kolkata?")
    assert "T06:00:00+05:30" in backend.requests[-1].messages[-1].text


def test_a_server_that_is_not_there_says_so() -> None:
    with pytest.raises(OperatorError, match=r"no MCP server at .*; it wrote: gone away; start it"):
        McpServer([sys.executable, "-c", "raise SystemExit('gone away')"]).connect()
    with pytest.raises(OperatorError, match=r"no MCP server at http://127\.0\.0\.1:9/mcp: ConnectError"):
        McpServer("http://127.0.0.1:9/mcp").connect()
    with pytest.raises(OperatorError, match="FileNotFoundError"):
        McpServer(["/no/such/program"]).connect()
    with pytest.raises(ConfigError, match=r"'python server\.py' is no address"):
        McpServer("python server.py")
    with pytest.raises(ConfigError, match="needs a command"):
        McpServer([])


def test_a_server_is_named_on_the_command_line(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "from keyeloop.tools import Toolset, tool\n\n\n@tool\ndef double(x: int) -> int:\n    return 2 * x\n\n\n"
        "TOOLS = Toolset([double]).prefixed('own_').approved({'*': 'allow'})\n"
    )
    named = load_tools([f"mcp:{sys.executable} -m mcp_server_time", f"{own}:TOOLS", f"{own}:double"])
    assert [tool.spec.name for tool in named] == ["get_current_time", "convert_time", "own_double", "double"]
    with pytest.raises(ConfigError, match="needs a command"):
        load_tools(["mcp:"])
