"""Records: equal runs give equal journals, and no way of ending leaves a journal that cannot be read."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from keyeloop.agent.agent import Agent, StreamEvent
from keyeloop.model_backend.base import Capabilities, Delta, Request
from keyeloop.model_backend.keye.cost import KEYE_TINY_LIMITS, KeyeVisualCost
from keyeloop.model_backend.replay import ReplayBackend
from keyeloop.model_backend.scripted import Script, ScriptedBackend, call, calls
from keyeloop.runtime.content import ToolSpec, images_of
from keyeloop.runtime.errors import BackendError, JournalError
from keyeloop.runtime.events import RunEnded, RunStart, ToolReturned
from keyeloop.runtime.journal import read_journal, steady_lines
from keyeloop.runtime.trajectory import Trajectory
from keyeloop.runtime.wire import parts_from_wire
from keyeloop.tools.base import Tool, ToolContext
from keyeloop.tools.video.clip import ClipVideo
from tests.agent.small_tools import add, crash, look, refuse, wait_for
from tests.tools.moving_pictures import write_video

ROOT = Path(__file__).resolve().parents[2]
TOOLS: list[Tool] = [add, crash, look, refuse, wait_for]
BUSY: list[Script] = [
    calls(("look", {"at_s": 3}), ("wait_for", {"seconds": 0.01}), ("look", {"at_s": 4}), reasoning="both"),
    calls(("crash", {"denominator": 0}), ("refuse", {"why": "that"}), ("no_tool", {})),
    call("add", a=1, b=2),
    "3 [f1 0,0,500,500] and [f9]",
]


async def test_the_same_run_twice_gives_byte_equal_journals(tmp_path: Path) -> None:
    kept = []
    for name in ("one", "two"):
        answer = await Agent(ScriptedBackend(BUSY), TOOLS, runs=tmp_path / name, on_tool_crash="continue").run(
            "what is it?"
        )
        media = sorted((path.name, path.read_bytes()) for path in (answer.run / "media").rglob("*") if path.is_file())
        kept.append((steady_lines(answer.run), media))
    assert kept[0] == kept[1]
    assert len(kept[0][0]) == 24 and len(kept[0][1]) == 2


async def test_a_replay_gives_the_same_journal_and_refuses_another_run(tmp_path: Path) -> None:
    recorded = await Agent(ScriptedBackend(BUSY), TOOLS, runs=tmp_path / "one", on_tool_crash="continue").run(
        "what is it?"
    )
    replayed = await Agent(ReplayBackend(recorded.run), TOOLS, runs=tmp_path / "two", on_tool_crash="continue").run(
        "what is it?"
    )
    assert steady_lines(replayed.run) == steady_lines(recorded.run)
    with pytest.raises(BackendError, match=r"request 1 is not the recorded one of .*: message 1 \(user\) differs"):
        await Agent(ReplayBackend(recorded.run), TOOLS, runs=tmp_path / "three", on_tool_crash="continue").run(
            "what was it?"
        )
    with pytest.raises(BackendError, match=r"its tools differ: recorded with add, .*, wait_for, now add, crash, look"):
        await Agent(ReplayBackend(recorded.run), TOOLS[:3], runs=tmp_path / "four", on_tool_crash="continue").run(
            "what is it?"
        )


async def test_a_replay_plans_pictures_as_the_recorded_model_did(tmp_path: Path) -> None:
    class Keyish(ScriptedBackend):
        def capabilities(self) -> Capabilities:
            return replace(super().capabilities(), cost=KeyeVisualCost(KEYE_TINY_LIMITS))

    video = write_video(tmp_path / "a.mp4", [0, 40, 80], size=(640, 360))
    script: list[Script] = [call("clip_video", video="video-1", start_s=0, end_s=0.08), "moving [f2]"]
    recorded = await Agent(Keyish(script), [ClipVideo()], runs=tmp_path / "one").run("?", video=video)
    (clip,) = (event for event in read_journal(recorded.run) if isinstance(event, ToolReturned))
    frames = images_of(parts_from_wire(clip.parts)[1])
    assert 0 < frames[0].media.width < 640, "not the scripted model's own size"
    replayed = await Agent(f"replay:{recorded.run}", [ClipVideo()], runs=tmp_path / "two").run("?", video=video)
    assert replayed.text == "moving [f2]" and steady_lines(replayed.run)[5:] == steady_lines(recorded.run)[5:]


async def test_a_replay_notices_a_tool_that_answers_otherwise(tmp_path: Path) -> None:
    class Fickle:
        spec = ToolSpec("draw", "Draw a number.", {"type": "object"})
        timeout_s = 5.0
        drawn = 0

        async def call(self, arguments, context):  # type: ignore[no-untyped-def]
            self.drawn += 1
            return await add.call({"a": self.drawn, "b": 0}, context)

        async def close(self, context: ToolContext) -> None:
            pass

    fickle = Fickle()
    recorded = await Agent(ScriptedBackend([call("draw"), "1"]), [fickle], runs=tmp_path / "one").run("?")
    with pytest.raises(BackendError, match=r"request 2 .* message 3 \(tool\) differs"):
        await Agent(ReplayBackend(recorded.run), [fickle], runs=tmp_path / "two").run("?")


async def test_citations_are_resolved_and_a_moment_never_looked_at_is_unseen(tmp_path: Path) -> None:
    answer = await Agent(ScriptedBackend(BUSY), TOOLS, runs=tmp_path, on_tool_crash="continue").run("what is it?")
    seen, unseen = answer.citations
    assert (seen.time_s, seen.handle, seen.seen) == (3.0, "f1", True)
    assert seen.region is not None and (seen.region.x1, seen.region.y1) == (140.0, 140.0)
    assert (unseen.handle, unseen.seen) == ("f9", False)
    assert str(answer) == "3 and"


async def test_the_stream_is_the_journal_and_the_pieces_of_replies(tmp_path: Path) -> None:
    agent = Agent(ScriptedBackend(BUSY), TOOLS, runs=tmp_path, on_tool_crash="continue")
    events = [event async for event in agent.stream("what is it?")]
    assert isinstance(events[0], RunStart) and isinstance(events[-1], RunEnded)
    folder = tmp_path / events[0].run_id
    assert [event for event in events if not isinstance(event, Delta)] == list(read_journal(folder))
    heard = [event for event in events if isinstance(event, Delta)]
    assert heard[0] == Delta("reasoning", "both") and heard[-1].kind == "text"


async def test_replies_may_come_whole_only(tmp_path: Path) -> None:
    agent = Agent(ScriptedBackend(["both"]), tools=[add], runs=tmp_path)
    events = [event async for event in agent.stream("What is 1 + 2?", deltas=False)]
    (folder,) = tmp_path.glob("[!.]*")
    assert events == list(read_journal(folder))


async def hang(request: Request) -> str:
    await asyncio.sleep(600)
    return "never"


async def until(stream: AsyncIterator[StreamEvent], kind: str) -> None:
    async for event in stream:
        if getattr(event, "kind", "") == kind:
            return


@pytest.mark.parametrize(
    ("script", "at"), [([hang], "request"), ([call("wait_for", seconds=600)], "tool_call")], ids=["asking", "in a tool"]
)
async def test_closing_the_stream_interrupts_the_run(tmp_path: Path, script: list[Script], at: str) -> None:
    stream = Agent(ScriptedBackend(script), TOOLS, runs=tmp_path, on_tool_crash="continue").stream("?")
    await until(stream, at)
    await asyncio.wait_for(stream.aclose(), 5)
    (run,) = tmp_path.glob("[!.]*")
    end = list(read_journal(run))[-1]
    assert isinstance(end, RunEnded) and end.status == "interrupted"
    assert asyncio.all_tasks() == {asyncio.current_task()}, "nothing runs on"


async def test_cancelling_aborts_records_and_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    aborted = asyncio.Event()

    async def hang_until_cancelled(request: Request) -> str:
        try:
            await asyncio.sleep(600)
        finally:
            aborted.set()
        return "never"

    agent = Agent(ScriptedBackend([call("add", a=1, b=1), hang_until_cancelled]), TOOLS, runs=tmp_path)
    task = asyncio.create_task(agent.run("?"))
    while not any(tmp_path.glob("[!.]*")) or len(list(read_journal(next(tmp_path.glob("[!.]*"))))) < 6:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert aborted.is_set()
    (run,) = tmp_path.glob("[!.]*")
    assert Trajectory.read(run).status == "interrupted"
    assert f"keyeloop show {run}" in capsys.readouterr().err


async def test_tools_are_closed_once_however_a_run_ends(tmp_path: Path) -> None:
    closed: list[str] = []

    class Keeper:
        timeout_s = 5.0

        def __init__(self, name: str, problem: BaseException | None = None) -> None:
            self.spec = ToolSpec(name, "Keeps.", {"type": "object"})
            self._problem = problem

        async def call(self, arguments, context):  # type: ignore[no-untyped-def]
            return ()

        async def close(self, context: ToolContext) -> None:
            closed.append(self.spec.name)
            if self._problem:
                raise self._problem

    tools = [Keeper("first", RuntimeError("stuck")), Keeper("second")]
    await Agent(ScriptedBackend(["x"]), tools, runs=tmp_path / "a").run("?")
    assert closed == ["first", "second"]
    with pytest.raises(BackendError):
        await Agent(ScriptedBackend([]), tools, runs=tmp_path / "b").run("?")
    stream = Agent(ScriptedBackend([hang]), tools, runs=tmp_path / "c").stream("?")
    await until(stream, "request")
    await stream.aclose()
    assert closed == ["first", "second"] * 3


def heed_ctrl_c() -> None:
    """For a new process: a shell that starts these tests in the background lets its children ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def children() -> set[str]:
    """Processes that this one has started and not yet collected."""
    lists = Path("/proc/self/task").glob("*/children")
    return {pid for listed in lists for pid in listed.read_text().split()}


async def test_no_decoder_is_left_behind_when_a_run_cannot_be_recorded(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", [0, 40, 80])
    (tmp_path / "runs").write_text("in the way")
    before = children()
    with pytest.raises(JournalError, match="cannot be recorded"):
        await Agent(ScriptedBackend(["x"]), [], runs=tmp_path / "runs").run("?", video=video)
    stream = Agent(ScriptedBackend([hang]), [], runs=tmp_path / "others").stream("?", video=video)
    await until(stream, "run_start")
    assert children() > before
    await stream.aclose()
    assert children() == before


def hanging_run(runs: Path) -> subprocess.Popen[str]:
    """A run in a process of its own, in its third turn."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.agent.killed_run", str(runs)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        preexec_fn=heed_ctrl_c,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "hanging\n"
    return process


def test_kill_9_leaves_everything_up_to_the_step_in_flight(tmp_path: Path) -> None:
    process = hanging_run(tmp_path)
    process.kill()
    process.communicate()
    (folder,) = tmp_path.glob("[!.]*")
    run = Trajectory.read(folder)
    assert run.status == "in flight" and run.end is None
    assert [step.turn for step in run.steps] == [1, 2, 3]
    assert [call.returned is not None for step in run.steps for call in step.calls] == [True, True]
    assert run.steps[2].request is not None and run.steps[2].reply is None
    assert run.media.read(next(iter((folder / "media").rglob("[0-9a-f]" * 64))).name)


def test_ctrl_c_closes_the_journal(tmp_path: Path) -> None:
    process = hanging_run(tmp_path)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    (folder,) = tmp_path.glob("[!.]*")
    assert Trajectory.read(folder).status == "interrupted"
    assert f"keyeloop show {folder}" in err
    assert process.returncode not in (0, -9)
