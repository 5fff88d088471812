"""Runs that were cut off go on to the end that they would have come to, whatever the instant they were cut at."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from keyeloop.agent.agent import Agent
from keyeloop.agent.replaying.tape import Diverged
from keyeloop.model_backend.base import Request
from keyeloop.model_backend.scripted import Script, call, calls
from keyeloop.runtime.budget import Limits
from keyeloop.runtime.content import Message
from keyeloop.runtime.errors import BackendError, ContextOverflow, InputError, JournalError
from keyeloop.runtime.events import StateRebuilt
from keyeloop.runtime.journal import read_journal
from keyeloop.runtime.trajectory import Trajectory, summarise
from keyeloop.tools.decorate import tool
from keyeloop.tools.python import Python
from tests.agent.cut_runs import CASES, Steadfast, cut, told
from tests.agent.small_tools import add, look


@pytest.mark.parametrize("case", CASES)
async def test_a_run_cut_behind_any_line_comes_to_the_same_end(case: str, tmp_path: Path) -> None:
    script, options, model = CASES[case]

    def agent(runs: str) -> tuple[Agent, Steadfast]:
        backend = Steadfast(script, **model)
        return Agent(backend, [look, add], runs=tmp_path / runs, **options), backend

    whole = await agent("whole")[0].run("what was there?")
    expected = told(whole.run)
    if case == "evictions":
        assert sum(one["kind"] == "context_edit" for one in expected) > 3
    for lines in range(1, len(expected)):
        folder = cut(whole.run, lines, tmp_path / "cut", torn=b'{"seq":9' if lines % 2 else b"")
        before = Trajectory.read(folder)
        resumer, backend = agent("cut")
        answer = await resumer.resume(folder)
        assert told(folder) == expected, f"{case}, cut behind line {lines}: {expected[lines - 1]}"
        assert (answer.text, answer.status) == (whole.text, whole.status)
        replied = sum(step.reply is not None for step in before.steps)
        assert all(place >= replied for place in backend.asked), "no recorded reply was asked for again"
        assert [one.kind for one in read_journal(folder)].count("state_rebuilt") == 1
        assert summarise(folder).totals.usage == summarise(whole.run).totals.usage


async def test_follow_up_questions_are_resumed_behind_what_was_said_before(tmp_path: Path) -> None:
    script: list[Script] = [call("look", at_s=1), "1 [f1]", call("look", at_s=2), call("add", a=1, b=1), "2 [f2] [f1]"]
    first = await Agent(Steadfast(script), [look, add], runs=tmp_path / "whole").run("and?")
    await first.ask("and then?")
    expected = told(first.run)
    asked = next(place for place, one in enumerate(expected) if one["kind"] == "question")
    for lines in range(asked + 1, len(expected)):
        folder = cut(first.run, lines, tmp_path / "cut")
        await Agent(Steadfast(script), [look, add], runs=tmp_path / "cut").resume(folder)
        assert told(folder) == expected, lines


async def test_recorded_calls_are_not_made_again(tmp_path: Path) -> None:
    made: list[int] = []

    @tool
    def fetch(page: int) -> str:
        """Fetch a page."""
        made.append(page)
        return f"page {page}"

    script: list[Script] = [calls(("fetch", {"page": 1}), ("fetch", {"page": 2})), call("fetch", page=3), "done"]
    whole = await Agent(Steadfast(script), [fetch], runs=tmp_path / "whole").run("?")
    kinds = [event.kind for event in read_journal(whole.run)]
    cut_between = kinds.index("tool_result") + 1  # page 1 came, page 2 did not
    made.clear()
    await Agent(Steadfast(script), [fetch], runs=tmp_path).resume(cut(whole.run, cut_between, tmp_path))
    assert made == [2, 3]


async def test_a_failed_run_and_an_interrupted_one_go_on(tmp_path: Path) -> None:
    down = [True]

    def broken(request: Request) -> str:
        if down[0]:
            raise BackendError("the server is gone")
        return "3 [f1]"

    script: list[Script] = [call("look", at_s=1), broken]
    with pytest.raises(BackendError):
        await Agent(Steadfast(script), [look], runs=tmp_path).run("?")
    (folder,) = tmp_path.glob("[!.]*")
    assert Trajectory.read(folder).status == "failed"
    down[0] = False
    assert (await Agent(Steadfast(script), [look], runs=tmp_path).resume(folder)).text == "3 [f1]"
    kinds = [event.kind for event in read_journal(folder)]
    assert kinds[-4:] == ["run_end", "state_rebuilt", "reply", "run_end"]
    run = Trajectory.read(folder)
    assert (run.status, run.answer) == ("answered", "3 [f1]") and summarise(folder).status == "answered"

    async def forever(request: Request) -> str:
        await asyncio.sleep(60)
        return "never"

    stream = Agent(Steadfast([call("look", at_s=1), forever]), [look], runs=tmp_path / "two").stream("?")
    async for event in stream:
        if event.__class__.__name__ == "RequestSent" and event.turn == 2:  # type: ignore[union-attr]
            await stream.aclose()
    (folder,) = (tmp_path / "two").glob("[!.]*")
    assert Trajectory.read(folder).status == "interrupted"
    assert (await Agent(Steadfast(script), [look], runs=tmp_path).resume(folder)).text == "3 [f1]"


async def test_a_run_that_fails_again_says_so_again(tmp_path: Path) -> None:
    def broken(request: Request) -> str:
        raise BackendError("the server is gone")

    agent = Agent(Steadfast([call("add", a=1, b=1), broken]), [add], runs=tmp_path)
    with pytest.raises(BackendError):
        await agent.run("?")
    (folder,) = tmp_path.glob("[!.]*")
    for _ in range(2):
        with pytest.raises(BackendError, match="the server is gone"):
            await agent.resume(folder)
    assert Trajectory.read(folder).status == "failed" and len(Trajectory.read(folder).steps) == 2
    done = Agent(Steadfast([call("add", a=1, b=1), "2"]), [add], runs=tmp_path)
    assert (await done.resume(folder)).text == "2"


async def test_what_has_ended_or_is_damaged_is_not_resumed(tmp_path: Path) -> None:
    script: list[Script] = [call("look", at_s=1), "2"]
    whole = await Agent(Steadfast(script), [look], runs=tmp_path / "whole").run("?")
    agent = Agent(Steadfast(script), [look], runs=tmp_path)
    with pytest.raises(InputError, match=r"has ended \(answered\): there is nothing to resume; keyeloop ask"):
        await agent.resume(whole.run)
    with pytest.raises(InputError, match="no run in"):
        await agent.resume(tmp_path)
    with pytest.raises(InputError, match="had the tools look, which are not given now"):
        await Agent(Steadfast(script), [add], runs=tmp_path).resume(cut(whole.run, 5, tmp_path / "a"))
    folder = cut(whole.run, 5, tmp_path / "b")
    (picture,) = (path for path in (folder / "media").rglob("*") if path.is_file())
    picture.unlink()
    before = (folder / "journal.jsonl").read_bytes()
    with pytest.raises(JournalError, match=f"cannot be played again: no media {picture.name}"):
        await agent.resume(folder)
    assert (folder / "journal.jsonl").read_bytes() == before


async def test_a_loop_that_takes_another_way_is_told_and_writes_nothing(tmp_path: Path) -> None:
    script: list[Script] = [call("add", a=1, b=2), call("add", a=1, b=3), "2"]
    whole = await Agent(Steadfast(script), [add], runs=tmp_path / "whole").run("?")
    folder = cut(whole.run, 7, tmp_path)
    path = folder / "journal.jsonl"
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert lines[3]["kind"] == "tool_call"
    lines[3]["call"]["arguments"]["a"] = 9
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    before = path.read_bytes()
    with pytest.raises(Diverged, match=r"its event 3 \(tool_call\) has another call: recorded .*9.*, now .*1"):
        await Agent(Steadfast(script), [add], runs=tmp_path).resume(folder)
    assert path.read_bytes() == before


async def test_seconds_count_as_they_were_spent(tmp_path: Path) -> None:
    async def slow(request: Request) -> str:
        await asyncio.sleep(0.4)
        return "late"

    script: list[Script] = [call("add", a=1, b=1), slow, "2"]
    limits = Limits(seconds=0.3)
    whole = await Agent(Steadfast(script), [add], runs=tmp_path / "whole", limits=limits).run("?")
    assert whole.status == "budget" and any(one["kind"] == "notice" for one in told(whole.run))
    for lines in range(6, len(told(whole.run))):
        folder = cut(whole.run, lines, tmp_path)
        await Agent(Steadfast(script), [add], runs=tmp_path).resume(folder)
        if lines > 6:
            assert Trajectory.read(folder).status == "budget", lines


async def test_a_request_that_was_too_long_is_not_sent_again(tmp_path: Path) -> None:
    refused: list[int] = []

    def full(request: Request) -> str | Message:
        shown = sum(not isinstance(part, str) for message in request.messages for part in message.parts)
        if any(part.__class__.__name__ == "Image" for message in request.messages for part in message.parts):
            refused.append(shown)
            raise ContextOverflow("too long")
        return "2"

    script: list[Script] = [call("look", at_s=1), full]
    whole = await Agent(Steadfast(script), [look], runs=tmp_path / "whole").run("?")
    assert whole.text == "2" and refused
    expected = told(whole.run)
    overflow = next(place for place, one in enumerate(expected) if one["kind"] == "context_edit")
    refused.clear()
    for lines in range(overflow + 1, len(expected)):
        folder = cut(whole.run, lines, tmp_path)
        await Agent(Steadfast(script), [look], runs=tmp_path).resume(folder)
        assert told(folder) == expected and not refused


async def test_recorded_cells_are_run_again_and_compared(tmp_path: Path) -> None:
    script: list[Script] = [
        call("python", code="a = 1\nprint(a)"),
        call("python", code="import time\nprint(time.time())"),
        call("python", code="print(a + 1)"),
        "2",
    ]
    whole = await Agent(Steadfast(script), [Python(engine="unsafe-local")], runs=tmp_path / "whole").run("?")
    expected = told(whole.run)
    assert expected[-3]["kind"] == "request"
    at = [place for place, one in enumerate(expected) if one["kind"] == "tool_call"][2]
    folder = cut(whole.run, at + 1, tmp_path)
    await Agent(Steadfast(script), [Python(engine="unsafe-local")], runs=tmp_path).resume(folder)
    assert told(folder) == expected, "the third cell found the variable of the first"
    (mark,) = (event for event in read_journal(folder) if isinstance(event, StateRebuilt))
    assert [(made.call_id, made.same) for made in mark.calls] == [("call-1", True), ("call-2", False)]
    assert "recorded" in mark.calls[1].difference and mark.turn == 3
