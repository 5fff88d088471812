"""Follow-up questions: the same conversation, record and handles go on, and nothing is decoded again."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from keyeloop.agent.agent import Agent
from keyeloop.agent.answer import Answer
from keyeloop.agent.report import report
from keyeloop.model_backend.base import Delta
from keyeloop.model_backend.replay import ReplayBackend
from keyeloop.model_backend.scripted import Script, ScriptedBackend, call, calls
from keyeloop.runtime.budget import Limits
from keyeloop.runtime.clock import SystemClock
from keyeloop.runtime.content import Message, Text
from keyeloop.runtime.errors import BackendError
from keyeloop.runtime.events import QuestionAsked, RunEnded
from keyeloop.runtime.journal import Journal, read_journal, steady_lines
from keyeloop.runtime.trajectory import Trajectory
from keyeloop.tools.base import Tool
from keyeloop.tools.video.clip import ClipVideo
from keyeloop.tools.video.decoder import Decoder
from keyeloop.tools.video.zoom import Zoom
from tests.agent.small_tools import add, look
from tests.tools.moving_pictures import write_video

SECOND = [number * 40 for number in range(25)]
VIDEO_TOOLS: list[Tool] = [ClipVideo(), Zoom()]
FIRST: list[Script] = [
    calls(("clip_video", {"video": "video-1", "start_s": 0, "end_s": 0.8, "max_frames": 2}), reasoning="I look."),
    Message("assistant", (Text("it moves [f2]"),), reasoning="Both differ."),
]


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "board.mp4", SECOND)


@pytest.fixture
def undecoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the decoders of this process have been asked to open."""
    asked: list[str] = []
    real = Decoder._converse

    def watch(self: Decoder, path: str, request: dict[str, Any], on_reply: Callable[..., bool]) -> None:
        asked.append(path)
        real(self, path, request, on_reply)

    monkeypatch.setattr(Decoder, "_converse", watch)
    return asked


async def asked_twice(video: Path, runs: Path, *more: Script) -> tuple[Answer, Answer, ScriptedBackend]:
    backend = ScriptedBackend([*FIRST, *more])
    first = await Agent(backend, VIDEO_TOOLS, runs=runs).run("does it move?", video=video)
    return first, await first.ask("which way?"), backend


async def test_every_request_begins_with_the_whole_previous_request_and_reply(video: Path, tmp_path: Path) -> None:
    cut = call("zoom", view="f2", box=[0, 0, 500, 500])
    _, second, backend = await asked_twice(video, tmp_path / "runs", cut, "up", "yes")
    await second.ask("sure?")
    assert len(backend.requests) == 5
    for before, after in pairwise(backend.requests):
        assert after.messages[: len(before.messages)] == before.messages and after.tools == before.tools
        reply = after.messages[len(before.messages)]
        assert reply.role == "assistant" and reply.raw
    asked = backend.requests[2].messages
    assert [message.role for message in asked] == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert (asked[2].reasoning, asked[4].reasoning, asked[5].text) == ("I look.", "Both differ.", "which way?")


async def test_nothing_is_decoded_and_the_prompt_comes_from_the_cache(
    video: Path, tmp_path: Path, undecoded: list[str]
) -> None:
    backend = ScriptedBackend([*FIRST, "to the right [f2]"])
    first = await Agent(backend, VIDEO_TOOLS, runs=tmp_path / "runs").run("does it move?", video=video)
    assert undecoded.count(str(video)) == 2
    video.unlink()
    second = await first.ask("which way?")
    assert undecoded.count(str(video)) == 2, "a second question opens no file"
    assert second.run == first.run and second.usage.cached_tokens >= 0.9 * second.usage.input_tokens
    (citation,) = second.citations
    assert citation.seen and citation.time_s == 0.8


async def test_handles_turns_calls_and_seq_count_on_in_one_record(video: Path, tmp_path: Path) -> None:
    look_again = call("clip_video", video="video-1", start_s=0.4, end_s=0.4)
    cut = call("zoom", view="f1", box=[0, 0, 500, 500])
    first, second, backend = await asked_twice(video, tmp_path / "runs", look_again, cut, "up [f3] [z1]")
    assert first.run == second.run and len(list((tmp_path / "runs").glob("[!.]*"))) == 1
    assert [message.text for message in backend.requests[4].messages if message.role == "tool"] == [
        "video-1: f1 at 0.0 s, f2 at 0.8 s", "video-1: f3 at 0.4 s", "z1: f1 box 0,0,500,500 at 0.0 s",
    ]  # fmt: skip
    events = list(read_journal(first.run))
    assert [event.seq for event in events] == list(range(len(events)))
    run = Trajectory.read(first.run)
    assert [step.turn for step in run.steps] == [1, 2, 3, 4, 5]
    assert [made.called.call.id for step in run.steps for made in step.calls] == ["call-1", "call-2", "call-3"]
    assert all(citation.seen for citation in second.citations)


async def test_a_trajectory_knows_every_question(video: Path, tmp_path: Path) -> None:
    look_again = call("clip_video", video="video-1", start_s=0.4, end_s=0.4)
    first, second, backend = await asked_twice(video, tmp_path / "runs", look_again, "up [f3]")
    run = Trajectory.read(first.run)
    assert [exchange.question for exchange in run.exchanges] == ["does it move?", "which way?"]
    assert [len(exchange.steps) for exchange in run.exchanges] == [2, 2]
    assert [exchange.end.answer for exchange in run.exchanges if exchange.end] == [first.text, second.text]
    assert (run.question, run.answer, run.status) == ("which way?", "up [f3]", "answered")
    assert [span.views for span in run.looked()["video-1"]] == [3], "one clip of two, and one frame within it"
    assert run.messages()[:-1] == backend.requests[-1].messages
    assert run.exchanges[1].usage == second.usage and run.usage == first.usage + second.usage
    shown = "\n".join(text for text, _ in report(run))
    assert shown.index("does it move?") < shown.index("it moves [f2]") < shown.index("which way?")
    assert shown.count("answered: 2 steps") == 2 and shown.count("where it looked") == 1


async def test_the_stream_is_what_the_journal_gains(tmp_path: Path) -> None:
    first = await Agent(ScriptedBackend(["1", call("add", a=1, b=1), "2"]), [add], runs=tmp_path).run("?")
    before = len(list(read_journal(first.run)))
    events = [event async for event in first.stream_ask("and now?")]
    assert isinstance(events[0], QuestionAsked) and events[0].number == 2 and isinstance(events[-1], RunEnded)
    assert [event for event in events if not isinstance(event, Delta)] == list(read_journal(first.run))[before:]


async def test_limits_count_anew_and_old_pictures_are_not_charged(tmp_path: Path) -> None:
    backend = ScriptedBackend([call("look", at_s=1), "1", call("look", at_s=2), "2", call("look", at_s=3), "no", "3"])
    agent = Agent(backend, [look], runs=tmp_path, limits=Limits(turns=2, tool_calls=2, visual_tokens=150))
    first = await agent.run("?")
    second = await first.ask("and then?")
    assert (first.status, second.status) == ("answered", "answered")
    third = await Agent(backend, [look], runs=tmp_path, limits=Limits(turns=1)).ask(first.run, "and then?")
    assert (third.status, third.text) == ("budget", "no")
    assert third.usage == Trajectory.read(first.run).exchanges[2].usage


async def test_the_same_call_is_no_habit_in_another_question(tmp_path: Path) -> None:
    again = call("add", a=1, b=1)
    backend = ScriptedBackend([again, again, "2", again, again, "still 2"])
    first = await Agent(backend, [add], runs=tmp_path).run("?")
    assert (await first.ask("sure?")).status == "answered"


async def test_a_new_process_goes_on_with_nothing_but_the_folder(video: Path, tmp_path: Path) -> None:
    once = ScriptedBackend([*FIRST, "up"])
    whole = await Agent(once, VIDEO_TOOLS, runs=tmp_path / "whole").run("does it move?", video=video)
    await whole.ask("which way?")
    first = await Agent(ScriptedBackend(FIRST), VIDEO_TOOLS, runs=tmp_path / "runs").run("does it move?", video=video)
    elsewhere = shutil.copytree(first.run, tmp_path / "copied")
    video.unlink()
    later = ScriptedBackend(["up"])
    answer = await Agent(later, VIDEO_TOOLS, runs="unused").ask(elsewhere, "which way?")
    assert answer.text == "up" and later.requests[0].messages == once.requests[2].messages
    one, other = (re.sub(r'"cached_tokens": \d+', "", str(steady_lines(run))) for run in (elsewhere, whole.run))
    assert one == other, "equal but for what a fresh model has cached"
    assert not Path("unused").exists()


@pytest.mark.parametrize("change", ["gone", "another"])
async def test_a_source_that_changed_is_told_by_name(video: Path, tmp_path: Path, change: str) -> None:
    first = await Agent(ScriptedBackend(FIRST), VIDEO_TOOLS, runs=tmp_path / "runs").run("moves?", video=video)
    video.unlink()
    if change == "another":
        write_video(video, SECOND[:9])
    backend = ScriptedBackend([call("clip_video", video="video-1", start_s=0, end_s=0), "I cannot look"])
    answer = await Agent(backend, VIDEO_TOOLS, runs=tmp_path / "runs").ask(first.run, "and?")
    told = backend.requests[1].messages[-1].text
    assert told.startswith(f"Error: video-1 cannot be looked at again: {video} ") and answer.text == "I cannot look"
    assert ("does not exist" if change == "gone" else "is not the file that this run has looked at") in told


async def test_a_source_that_was_copied_back_is_looked_at_again(video: Path, tmp_path: Path) -> None:
    first = await Agent(ScriptedBackend(FIRST), VIDEO_TOOLS, runs=tmp_path / "runs").run("moves?", video=video)
    shutil.copy(video, tmp_path / "copy.mp4")
    (tmp_path / "copy.mp4").replace(video)
    backend = ScriptedBackend([call("clip_video", video="video-1", start_s=0, end_s=0), "yes [f3]"])
    answer = await Agent(backend, VIDEO_TOOLS, runs=tmp_path / "runs").ask(first.run, "and?")
    assert answer.citations[0].seen


async def test_a_replay_gives_every_question_again(tmp_path: Path) -> None:
    script: list[Script] = [call("look", at_s=1), "1 [f1]", call("look", at_s=2), "2 [f2]"]
    first = await Agent(ScriptedBackend(script), [look], runs=tmp_path / "one").run("?")
    await first.ask("and then?")
    again = await Agent(ReplayBackend(first.run), [look], runs=tmp_path / "two").run("?")
    assert (await again.ask("and then?")).text == "2 [f2]"
    assert steady_lines(again.run) == steady_lines(first.run)
    third = await Agent(ReplayBackend(first.run), [look], runs=tmp_path / "three").run("?")
    later = await Agent(ReplayBackend(first.run), [look]).ask(third.run, "and then?")
    assert later.text == "2 [f2]", "a fresh replay finds its place"
    with pytest.raises(BackendError, match="there is no request 5"):
        await later.ask("and then?")


def test_scripts_ask_on_too(tmp_path: Path) -> None:
    first = Agent(ScriptedBackend(["1", "2", "3"]), [], runs=tmp_path).run_sync("?")
    second = first.ask_sync("and?")
    assert (second.text, second.run) == ("2", first.run)
    assert first.ask_sync("and then?").text == "3", "whichever answer is asked, the conversation goes on at its end"


def test_a_record_without_questions_reads_as_before(tmp_path: Path) -> None:
    answer = Agent(ScriptedBackend(["1"]), [], runs=tmp_path).run_sync("?")
    path = answer.run / "journal.jsonl"
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    del lines[0]["config"]["model"]
    path.write_text("".join(json.dumps({**line, "crc32": None}) + "\n" for line in lines))
    run = Trajectory.read(answer.run)
    assert [exchange.question for exchange in run.exchanges] == ["?"] and run.end is not None
    with Journal.reopen(answer.run, SystemClock()) as journal:
        journal.append(QuestionAsked(number=2, question="and?", model="m"))
    later = Trajectory.read(answer.run)
    assert (later.status, later.answer, later.question) == ("in flight", "", "and?")
