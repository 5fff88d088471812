"""Contexts: requests only append, and what is evicted keeps its address."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from keyeloop.agent.agent import Agent
from keyeloop.agent.context import Context, stub_text
from keyeloop.model_backend.base import Request, Sampling
from keyeloop.model_backend.keye.template import Chunk, render
from keyeloop.model_backend.replay import ReplayBackend
from keyeloop.model_backend.scripted import Script, ScriptedBackend, call, calls
from keyeloop.runtime.budget import Limits
from keyeloop.runtime.content import Image, MediaRef, Message, Text, ToolSpec, Video, images_of
from keyeloop.runtime.errors import ContextOverflow
from keyeloop.runtime.events import ContextEdited
from keyeloop.runtime.evidence import Region, View
from keyeloop.runtime.trajectory import Trajectory
from keyeloop.tools.video.clip import ClipVideo
from tests.agent.small_tools import look
from tests.tools.moving_pictures import write_video

SHA = "a" * 64


def picture(handle: str, time_s: float | None = 1.0, parent: str | None = None, side_px: int = 280) -> Image:
    view = View(handle, "video-1", SHA, time_s, Region(0, 0, 640, 360), parent)
    return Image(MediaRef(SHA, "image/jpeg", 10, side_px, side_px), view)


def thoughtful(at_s: int) -> Message:
    return calls(("look", {"at_s": at_s}), reasoning=f"I should look at {at_s} s.\nThen again.")


async def six_turns(runs: Path) -> ScriptedBackend:
    backend = ScriptedBackend([*(thoughtful(at_s) for at_s in range(5)), "it moved [f5]"])
    await Agent(backend, [look], runs=runs).run("does it move?")
    return backend


async def test_every_request_begins_with_the_whole_previous_request_and_reply(tmp_path: Path) -> None:
    backend = await six_turns(tmp_path)
    assert len(backend.requests) == 6
    for before, after in pairwise(backend.requests):
        assert after.messages[: len(before.messages)] == before.messages
        reply = after.messages[len(before.messages)]
        assert reply.role == "assistant" and reply.reasoning and reply.raw
        assert any(isinstance(part, Image) for part in after.messages[-1].parts), "an image every turn"


async def test_so_does_its_rendered_form(tmp_path: Path) -> None:
    """In the template's own pieces, pictures by content: what a server's prefix cache compares."""
    backend = await six_turns(tmp_path)
    pieces = [flat(render(request.messages, request.tools)) for request in backend.requests]
    for before, after, request in zip(pieces, pieces[1:], backend.requests[1:], strict=False):
        reply = next(message for message in reversed(request.messages) if message.role == "assistant")
        whole = before + (reply.raw or "")
        assert after.startswith(whole) and len(after) > len(whole)
    assert pieces[-1].count("<picture ") == 5


def flat(chunks: tuple[Chunk, ...]) -> str:
    return "".join(
        chunk.text if not hasattr(chunk, "image") else f"<picture {chunk.image.media.sha256}>" for chunk in chunks
    )


async def test_an_equal_picture_is_the_same_bytes_every_time(tmp_path: Path) -> None:
    first: list[MediaRef] = []
    second: list[MediaRef] = []
    for kept, runs in ((first, "one"), (second, "two")):
        backend = await six_turns(tmp_path / runs)
        kept += [part.media for m in backend.requests[-1].messages for part in m.parts if isinstance(part, Image)]
    assert first == second and len({media.sha256 for media in first}) == 5


def context_of(room_tokens: int, *turns: Message, max_tokens: int = 100) -> Context:
    backend = ScriptedBackend([], context_tokens=room_tokens)
    opening = [Message("system", (Text("s"),)), Message("user", (picture("f0"), Text("q")))]
    context = Context(backend, [ToolSpec("look", "Looks.", {})], Sampling(max_tokens=max_tokens), opening)
    context.append(*turns)
    return context


def turns(*handles: str) -> list[Message]:
    made: list[Message] = []
    for index, handle in enumerate(handles):
        made.append(Message("assistant", raw="looking"))
        made.append(Message("tool", (Text(handle), picture(handle, float(index))), tool_call_id=handle))
    return made


def test_what_fits_is_left_alone() -> None:
    context = context_of(1000, *turns("f1", "f2"))
    before = list(context.messages)
    assert context.fit() == () and context.messages == before


def test_the_oldest_pictures_go_in_one_batch_and_the_newest_stays() -> None:
    context = context_of(880, *turns("f1", "f2", "f3", "f4", "f5", "f6"))
    assert context.left_tokens() < 0
    edits = context.fit()
    assert [edit.handles for edit in edits] == [("f1",), ("f2",), ("f3",), ("f4",), ("f5",)]
    assert context.left_tokens() >= 250, "one edit makes room for several turns"
    assert edits[0].stub == "f1 at 0.0 s of video-1 was removed; clip_video can show it again"
    assert context.messages[3].parts == (Text("f1"), Text(edits[0].stub))
    assert isinstance(context.messages[1].parts[0], Image), "the task's own picture is never touched"
    assert isinstance(context.messages[-1].parts[1], Image)
    assert all(edit.freed_tokens > 50 for edit in edits)
    assert context.fit() == ()


def test_unseen_pictures_go_only_when_nothing_else_is_left() -> None:
    fresh = Message("tool", (picture("f8"), picture("f9")), tool_call_id="x")
    context = context_of(420, *turns("f1"), Message("assistant", raw="more"), fresh)
    assert [edit.handles for edit in context.fit()] == [("f1",), ("f8",)]
    assert isinstance(context.messages[-1].parts[1], Image)


def test_the_reply_is_held_to_what_is_left() -> None:
    context = context_of(330, Message("user", (Text("x" * 600),)))
    request, size = context.request()
    assert request.sampling.max_tokens == 330 - size.input_tokens < 100
    assert size.visual_tokens == 100


@pytest.mark.parametrize(
    ("part", "stub"),
    [
        (picture("f1", 83.0), "f1 at 83.0 s of video-1 was removed; clip_video can show it again"),
        (
            Video((picture("f1", 83.0), picture("f2", 84.04))),
            "f1 at 83.0 s, f2 at 84.0 s of video-1 were removed; clip_video can show them again",
        ),
        (picture("z1", 83.0, "f1"), "z1 at 83.0 s of video-1 was removed; zoom can show it again"),
        (picture("f3", None), "f3 of video-1 was removed; zoom can show it again"),
        (Image(MediaRef(SHA, "image/png", 1, 28, 28)), "a picture was removed"),
    ],
)
def test_stubs_keep_the_address(part: Image | Video, stub: str) -> None:
    assert stub_text(part) == stub


async def test_a_long_run_is_edited_recorded_and_replayed(tmp_path: Path) -> None:
    def next_look(request: Request) -> Message:
        return thoughtful(len(request.messages))

    def backend(replies: list[object]) -> ScriptedBackend:
        return ScriptedBackend(replies, context_tokens=2000)  # type: ignore[arg-type]

    first = backend([next_look] * 16 + ["still"])
    answer = await Agent(first, [look], runs=tmp_path).run("does it move?")
    run = Trajectory.read(answer.run)
    edits = [event for event in run.events if isinstance(event, ContextEdited)]
    assert answer.status == "answered" and len(edits) >= 4
    assert len({edit.turn for edit in edits}) < len(edits), "in batches"
    for request in first.requests:
        assert first.count_tokens(request).input_tokens + request.sampling.max_tokens <= 2000
    assert run.messages()[:-1] == first.requests[-1].messages
    replayed = await Agent(ReplayBackend(answer.run, like=backend([])), [look], runs=tmp_path / "again").run(
        "does it move?"
    )
    assert replayed.text == "still"


async def test_looking_again_after_an_eviction_is_no_habit(tmp_path: Path) -> None:
    script = [thoughtful(at_s) for at_s in (1, 2, 3, 1, 4, 5, 6, 1, 7, 8, 9, 1)]
    backend = ScriptedBackend([*script, "still"], context_tokens=1300)
    answer = await Agent(backend, [look], runs=tmp_path, limits=Limits(visual_tokens=1100)).run("does it move?")
    edits = {event.turn for event in Trajectory.read(answer.run).events if isinstance(event, ContextEdited)}
    assert len(edits) >= 2 and answer.text == "still"
    assert answer.reason.startswith("the limit of visual_tokens"), "every picture is charged, evicted ones too"


def overflow(request: Request) -> str:
    raise ContextOverflow("the server counts more")


async def test_a_server_that_finds_the_context_too_long_gets_half_of_it(tmp_path: Path) -> None:
    backend = ScriptedBackend([*(thoughtful(at_s) for at_s in range(4)), overflow, "moving"])
    answer = await Agent(backend, [look], runs=tmp_path).run("does it move?")
    edits = [event for event in Trajectory.read(answer.run).events if isinstance(event, ContextEdited)]
    assert (answer.status, answer.text) == ("answered", "moving")
    assert [edit.evicted for edit in edits] == [("f1",), ("f2",), ("f3",)] and {edit.turn for edit in edits} == {6}


async def test_where_nothing_can_go_a_full_context_ends_as_budget(tmp_path: Path) -> None:
    answer = await Agent(ScriptedBackend([overflow] * 3), [], runs=tmp_path).run("why?")
    assert (answer.status, answer.text) == ("budget", "")
    assert answer.reason == "the model's context is full: the server counts more"


async def test_a_context_that_cannot_hold_an_answer_ends_as_budget(tmp_path: Path) -> None:
    backend = ScriptedBackend(["x"], context_tokens=400)
    answer = await Agent(backend, [], runs=tmp_path).run("why? " * 250)
    assert (answer.status, answer.text) == ("budget", "")
    assert answer.reason == "the model's context is full; no room was left for an answer"
    assert backend.requests == []


async def test_tools_are_told_what_a_result_may_cost(tmp_path: Path) -> None:
    seen: list[int] = []

    class Watching:
        spec, timeout_s = look.spec, 10.0

        async def call(self, arguments, context):  # type: ignore[no-untyped-def]
            seen.append(context.visual_budget_tokens)
            return (Text("ok"),)

        async def close(self, context):  # type: ignore[no-untyped-def]
            seen.append(-1)

    backend = ScriptedBackend([thoughtful(1), calls(("look", {"at_s": 2}), ("look", {"at_s": 3})), "x"])
    agent = Agent(backend, [Watching()], runs=tmp_path, sampling=Sampling(max_tokens=2768))
    await agent.run("?")
    assert seen == [10_000, 5_000, 5_000, -1]


async def test_a_single_clip_stays_within_the_total_of_tokens(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", [number * 40 for number in range(50)], size=(280, 280))
    script: list[Script] = [call("clip_video", video="video-1", start_s=0, end_s=1.96, max_frames=40), "it moves"]
    tokens: dict[int | None, int] = {}
    frames: dict[int | None, int] = {}
    for total in (None, 4000, 700):
        backend, limits = ScriptedBackend(script), Limits(total_tokens=total)
        answer = await Agent(backend, [ClipVideo()], runs=tmp_path, limits=limits).run("does it move?", video=video)
        tokens[total] = answer.usage.input_tokens + answer.usage.output_tokens
        frames[total] = sum(len(images_of(part)) for part in backend.requests[1].messages[3].parts)
        assert answer.text == "it moves"
    assert frames[None] == 40 and tokens[None] > 4000
    assert 30 <= frames[4000] < 40 and 3600 < tokens[4000] <= 4100, "one answer of a few words more"
    assert frames[700] < 5 and tokens[700] <= 800
