"""Calls in a run: a tool's own error ends it or is told, progress is streamed, no more at once than a tool allows."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from keyeloop.agent.agent import Agent
from keyeloop.agent.live import LiveView
from keyeloop.agent.working import Working
from keyeloop.model_backend.scripted import ScriptedBackend, call, calls
from keyeloop.runtime.config import load_config
from keyeloop.runtime.content import Part, Text, ToolSpec
from keyeloop.runtime.errors import ToolCrashed, ToolDefinitionError
from keyeloop.runtime.events import RunEnded, ToolReturned
from keyeloop.runtime.trajectory import Trajectory
from keyeloop.tools.base import Progress
from keyeloop.tools.decorate import OnCrash, tool


@tool
def divide(by: int) -> float:
    """Divide one."""
    return 1 / by


def returned(run: Path) -> list[ToolReturned]:
    return [event for event in Trajectory.read(run).events if isinstance(event, ToolReturned)]


async def test_a_tools_own_error_ends_the_run_with_its_traceback_recorded(tmp_path: Path) -> None:
    agent = Agent(ScriptedBackend([call("divide", by=0), "never asked"]), [divide], runs=tmp_path)
    with pytest.raises(ToolCrashed, match=r"tool 'divide' raised ZeroDivisionError: division by zero") as caught:
        await agent.run("?")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    (run,) = tmp_path.iterdir()
    (result,) = returned(run)
    assert result.error and "return 1 / by" in result.details["traceback"]
    read = Trajectory.read(run)
    assert read.status == "failed" and isinstance(read.events[-1], RunEnded)
    assert read.events[-1].reason.startswith("ToolCrashed: tool 'divide' raised ZeroDivisionError")


async def test_a_run_that_a_tool_ended_can_be_asked_on(tmp_path: Path) -> None:
    wrong = calls(("divide", {"by": 0}), ("divide", {"by": 2}))
    backend = ScriptedBackend([wrong, "it cannot be divided"])
    agent = Agent(backend, [divide], runs=tmp_path)
    with pytest.raises(ToolCrashed):
        await agent.run("?")
    (run,) = tmp_path.iterdir()
    answer = await agent.ask(run, "and now?")
    assert answer.text == "it cannot be divided"
    told = [message.text for message in backend.requests[-1].messages if message.role == "tool"]
    assert "broke down (ZeroDivisionError" in told[0] and "gave no result" in told[1]


@pytest.mark.parametrize(("agent_says", "tool_says", "ends"), [("continue", None, False), ("end", "continue", False),
                                                             ("continue", "end", True)])  # fmt: skip
async def test_the_policy_of_the_tool_goes_before_the_agents(
    tmp_path: Path, agent_says: OnCrash, tool_says: OnCrash | None, ends: bool
) -> None:
    made = tool(name="fail", on_crash=tool_says)(lambda: 1 / 0)
    agent = Agent(ScriptedBackend([call("fail"), "done"]), [made], runs=tmp_path, on_tool_crash=agent_says)
    if ends:
        with pytest.raises(ToolCrashed):
            await agent.run("?")
        return
    answer = await agent.run("?")
    (result,) = returned(answer.run)
    assert answer.text == "done" and "1 / 0" in result.details["traceback"]
    assert "Traceback" not in str(result.parts)


async def test_the_policy_may_come_from_settings(tmp_path: Path) -> None:
    settings = load_config({"runs": tmp_path}, environment={"KEYELOOP_ON_TOOL_CRASH": "continue"})
    agent = Agent(ScriptedBackend([call("divide", by=0), "done"]), [divide], settings=settings)
    assert (await agent.run("?")).text == "done"


@tool
def count(to: int) -> Iterator[Any]:
    """Count."""
    for number in range(1, to + 1):
        yield Progress("counting", number, to)
    yield "counted"


async def test_progress_is_streamed_and_shown_but_not_recorded(tmp_path: Path) -> None:
    agent = Agent(ScriptedBackend([call("count", to=3), "done"]), [count], runs=tmp_path)
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, color_system=None, legacy_windows=False)
    heard: list[Working] = []
    with LiveView(console, tmp_path) as view:
        async for event in agent.stream("?"):
            view.on(event)
            if isinstance(event, Working):
                heard.append(event)
                view._refresh(now=True)
    assert [each.progress for each in heard[:3]] == [Progress("counting", number, 3) for number in (1, 2, 3)]
    assert heard[0].call.name == "count" and "count: counting, 2 of 3" in out.getvalue()
    assert view.run is not None and "counting" not in (view.run / "journal.jsonl").read_text()


async def test_no_more_calls_at_once_than_a_tool_allows(tmp_path: Path) -> None:
    now, most = 0, 0

    @tool(concurrency=2, timeout_s=0.1)
    async def work(part: int) -> int:
        nonlocal now, most
        now, most = now + 1, max(most, now + 1)
        await asyncio.sleep(0.06)
        now -= 1
        return part

    wanted = calls(*[("work", {"part": part}) for part in range(5)])
    answer = await Agent(ScriptedBackend([wanted, "done"]), [work], runs=tmp_path).run("?")
    assert most == 2, "and waiting for a place is not the call's own time"
    assert not any(result.error for result in returned(answer.run))


@pytest.mark.parametrize("reference", ["http://169.254.169.254/schema", "#/$defs/missing", "other.json"])
def test_a_schema_may_not_refer_to_what_it_does_not_hold(reference: str) -> None:
    class Remote:
        timeout_s = 1.0
        spec = ToolSpec("remote", "", {"type": "object", "properties": {"x": {"$ref": reference}}})

        async def call(self, arguments: Any, context: Any) -> tuple[Part, ...]:
            return (Text("called"),)

        async def close(self, context: Any) -> None: ...

    with pytest.raises(ToolDefinitionError, match="everything must be in the schema"):
        Agent(ScriptedBackend([]), [Remote()])
