"""Runs that were cut off, failed, damaged or are still under way: asked on where they can be, else told why not."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from keyeloop.agent.agent import Agent
from keyeloop.agent.answer import Answer
from keyeloop.agent.past import Past
from keyeloop.model_backend.base import Request
from keyeloop.model_backend.scripted import ScriptedBackend, call, calls
from keyeloop.runtime.budget import Limits
from keyeloop.runtime.clock import SystemClock
from keyeloop.runtime.content import Message, Text, ToolCall
from keyeloop.runtime.errors import BackendError, InputError, JournalError, UsageError
from keyeloop.runtime.events import RunEnded
from keyeloop.runtime.journal import read_journal
from keyeloop.runtime.trajectory import Trajectory
from keyeloop.tools.decorate import tool
from tests.agent.small_tools import add, look
from tests.agent.test_record import hang, hanging_run, until


def give_out(request: Request) -> str:
    raise BackendError("the server is gone")


async def test_a_run_that_failed_can_be_asked_on(tmp_path: Path) -> None:
    agent = Agent(ScriptedBackend([call("add", a=1, b=1), give_out, "2"]), [add], runs=tmp_path)
    with pytest.raises(BackendError):
        await agent.run("?")
    (folder,) = tmp_path.glob("[!.]*")
    answer = await agent.ask(folder, "go on")
    assert answer.text == "2"
    run = Trajectory.read(folder)
    assert [exchange.end.status for exchange in run.exchanges if exchange.end] == ["failed", "answered"]


async def test_calls_that_were_cut_off_are_closed_with_an_error(tmp_path: Path) -> None:
    @tool
    async def stall() -> str:
        """Never."""
        await asyncio.sleep(600)
        return "late"

    backend = ScriptedBackend([calls(("add", {"a": 1, "b": 1}), ("stall", {}), ("add", {"a": 2, "b": 2})), "well"])
    agent = Agent(backend, [add, stall], runs=tmp_path)
    stream = agent.stream("?")
    async for event in stream:
        if getattr(event, "kind", "") == "tool_result":
            break
    await stream.aclose()
    (folder,) = tmp_path.glob("[!.]*")
    answer = await agent.ask(folder, "what do you have?")
    assert answer.text == "well"
    assert [(message.role, message.tool_call_id, message.text) for message in backend.requests[1].messages[3:]] == [
        ("tool", "call-1", "2"),
        ("tool", "call-2", "Error: stall gave no result; call it again if need be"),
        ("tool", "call-3", "Error: add gave no result; call it again if need be"),
        ("user", None, "what do you have?"),
    ]
    assert Trajectory.read(folder).messages()[:-1] == backend.requests[1].messages


async def test_calls_of_a_last_reply_that_were_not_made_are_closed_too(tmp_path: Path) -> None:
    stray = Message("assistant", (Text("3"),), tool_calls=(ToolCall("x", "add", {"a": 1, "b": 2}),))
    backend = ScriptedBackend([call("add", a=1, b=1), stray, "4"])
    first = await Agent(backend, [add], runs=tmp_path, limits=Limits(turns=1)).run("?")
    assert (await first.ask("and?")).text == "4"
    assert backend.requests[2].messages[-2].text == "Error: add gave no result; call it again if need be"


async def test_a_killed_run_goes_on_once_its_process_is_gone(tmp_path: Path) -> None:
    process: subprocess.Popen[str] = await asyncio.to_thread(hanging_run, tmp_path)
    (folder,) = tmp_path.glob("[!.]*")
    agent = Agent(ScriptedBackend(["10 [f1]"]), [add, look], runs=tmp_path)
    with pytest.raises(JournalError, match="still going on: wait until its question has ended"):
        await agent.ask(folder, "?")
    process.kill()
    process.communicate()
    with (folder / "journal.jsonl").open("ab") as journal:
        journal.write(b'{"kind": "rep')
    answer = await agent.ask(folder, "what was there?")
    assert answer.text == "10 [f1]" and answer.citations[0].time_s == 7.0
    assert [event.seq for event in read_journal(folder)] == list(range(len(list(read_journal(folder)))))


async def test_what_cannot_go_on_says_why(tmp_path: Path) -> None:
    agent = Agent(ScriptedBackend([call("look", at_s=1), "1"]), [look], runs=tmp_path)
    first = await agent.run("?")
    with pytest.raises(InputError, match="no run in"):
        await agent.ask(tmp_path, "?")
    with pytest.raises(InputError, match="the question is empty"):
        await first.ask("  ")
    with pytest.raises(InputError, match="had the tools look, which are not given now"):
        await Agent(ScriptedBackend(["x"]), [add]).ask(first.run, "?")
    (picture,) = (path for path in (first.run / "media").rglob("*") if path.is_file())
    picture.unlink()
    with pytest.raises(InputError, match=f"its picture {picture} is missing"):
        await first.ask("?")
    with pytest.raises(UsageError, match="ask_sync cannot wait where an event loop runs"):
        first.ask_sync("?")
    end = list(read_journal(first.run))[-1]
    assert isinstance(end, RunEnded), "nothing is recorded of a question that cannot be asked"
    with pytest.raises(UsageError, match="this answer has no agent to ask"):
        await Answer.from_end(end, first.run).ask("?")


async def test_results_out_of_place_are_no_conversation(tmp_path: Path) -> None:
    first = await Agent(ScriptedBackend([call("add", a=1, b=1), "2"]), [add], runs=tmp_path).run("?")
    path = first.run / "journal.jsonl"
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    kept = [line for line in lines if line["kind"] != "tool_result"]
    path.write_text("".join(json.dumps({**line, "seq": seq}) + "\n" for seq, line in enumerate(kept)))
    with pytest.raises(InputError, match="call-1 has no result before message 3"):
        Past.open(first.run, SystemClock())
    returned = next(line for line in lines if line["kind"] == "tool_result")
    lines.append({**returned, "seq": len(lines)})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(InputError, match="message 5 answers no call that is due"):
        Past.open(first.run, SystemClock())


async def test_a_question_that_is_under_way_holds_the_record(tmp_path: Path) -> None:
    first = await Agent(ScriptedBackend(["1", hang, "3"]), [], runs=tmp_path).run("?")
    stream = first.stream_ask("one")
    await until(stream, "request")
    with pytest.raises(JournalError, match="still going on"):
        await first.ask("two")
    await stream.aclose()
    assert Trajectory.read(first.run).status == "interrupted"
    assert (await first.ask("two")).status == "answered"
