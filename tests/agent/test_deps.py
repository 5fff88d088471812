"""``ToolContext.deps``: the caller's own objects reach tools, and nothing else."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from keyeloop.agent.agent import Agent
from keyeloop.model_backend.scripted import ScriptedBackend, call
from keyeloop.tools.base import ToolContext
from keyeloop.tools.decorate import tool

SECRET = "sesame-opens"


@dataclass
class Shelf:
    password: str = SECRET
    filed: list[int] = field(default_factory=list)


@tool
def file_number(number: int, ctx: ToolContext) -> str:
    """File a number."""
    shelf: Shelf = ctx.deps
    shelf.filed.append(number)
    return f"filed as number {len(shelf.filed)}"


@tool
def show_context(context: ToolContext) -> str:
    """Show what there is."""
    return repr(context)


async def test_a_tool_reads_the_deps_of_its_agent_and_of_its_run(tmp_path: Path) -> None:
    own, other = Shelf(), Shelf()
    filing = call("file_number", number=7)
    agent = Agent(ScriptedBackend([filing, "1", filing, "2"]), [file_number], runs=tmp_path, deps=own)
    await agent.run("file it")
    answer = await agent.run("file it", deps=other)
    assert (own.filed, other.filed) == ([7], [7])
    assert "ctx" not in json.dumps(file_number.spec.parameters)
    assert (answer.status, answer.deps) == ("answered", other)


async def test_a_follow_up_keeps_the_deps_of_its_run(tmp_path: Path) -> None:
    own, other = Shelf(), Shelf()
    filing = call("file_number", number=1)
    backend = ScriptedBackend([filing, "1", filing, "2", filing, "3"])
    agent = Agent(backend, [file_number], runs=tmp_path, deps=own)
    first = await agent.run("file it", deps=other)
    await first.ask("again")
    assert (own.filed, other.filed) == ([], [1, 1])
    await agent.ask(first.run, "again")
    assert (own.filed, other.filed) == ([1], [1, 1])


async def test_deps_are_written_nowhere(tmp_path: Path) -> None:
    backend = ScriptedBackend([call("show_context"), "seen"])
    answer = await Agent(backend, [show_context], runs=tmp_path, deps=Shelf()).run("?", deps=Shelf())
    journal = (answer.run / "journal.jsonl").read_text()
    assert "ToolContext(" in journal and SECRET not in journal
    assert SECRET not in repr(answer) and SECRET not in json.dumps(answer.to_json())
