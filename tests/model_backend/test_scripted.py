"""The scripted backend: replies in order, deterministic counts, requests kept."""

from pathlib import Path

import pytest

from keyeloop.model_backend.base import Delta, Reply, Request
from keyeloop.model_backend.scripted import PatchCost, ScriptedBackend, call, calls
from keyeloop.runtime.content import Image, MalformedCall, MediaRef, Message, Text, ToolSpec, Usage, Video
from keyeloop.runtime.errors import BackendError
from keyeloop.runtime.media import MediaStore

QUESTION = Message("user", (Text("what is shown?"),))


async def test_replies_come_in_order_and_requests_are_kept(tmp_path: Path) -> None:
    backend = ScriptedBackend([call("look", at_s=3), lambda request: f"after {len(request.messages)}", "done"])
    media = MediaStore(tmp_path)
    first = await backend.generate(Request((QUESTION,)), media)
    assert first.finish == "tool_calls" and first.message.tool_calls[0].arguments == {"at_s": 3}
    assert '<tool_call>\n{"name": "look", "arguments": {"at_s": 3}}' in (first.message.raw or "")
    second = await backend.generate(Request((QUESTION, first.message)), media)
    assert second.message.text == "after 2" and second.finish == "stop"
    assert [len(request.messages) for request in backend.requests] == [1, 2]


async def test_a_script_that_runs_out_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="0 replies; request 1"):
        await ScriptedBackend([]).generate(Request((QUESTION,)), MediaStore(tmp_path))


async def test_async_entries_malformed_calls_and_deltas(tmp_path: Path) -> None:
    async def later(request: Request) -> Reply:
        broken = MalformedCall("<tool_call>{", "not JSON")
        return Reply(Message("assistant", reasoning="hm", raw="hm</think>{"), Usage(), "stop", (broken,))

    heard: list[Delta] = []
    backend = ScriptedBackend([later, calls(("a", {}), ("b", {}), reasoning="two")])
    reply = await backend.generate(Request((QUESTION,)), MediaStore(tmp_path), heard.append)
    assert reply.malformed[0].problem == "not JSON" and reply.message.raw == "hm</think>{"
    await backend.generate(Request((QUESTION,)), MediaStore(tmp_path), heard.append)
    assert [delta.kind for delta in heard] == ["reasoning", "reasoning", "tool_call", "tool_call"]


async def test_counts_add_up_and_a_kept_prefix_counts_as_cached(tmp_path: Path) -> None:
    picture = Image(MediaRef("0" * 64, "image/jpeg", 10, 280, 140))
    shown = Message("tool", (Text("f1"), Video((picture, picture)), picture), tool_call_id="s1")
    backend = ScriptedBackend(["x", "y"])
    short = Request((QUESTION,), (ToolSpec("look", "Looks.", {}),))
    long = Request((QUESTION, shown), short.tools)
    assert backend.count_tokens(long).visual_tokens == 150
    added = backend.count_tokens(long).input_tokens - backend.count_tokens(short).input_tokens
    assert added == 150 + 4 + 1
    await backend.generate(short, MediaStore(tmp_path))
    usage = (await backend.generate(long, MediaStore(tmp_path))).usage
    assert usage.cached_tokens == backend.count_tokens(short).input_tokens
    assert usage.output_tokens > 0 and usage.visual_tokens == 150


def test_patch_cost_stays_inside_its_limits() -> None:
    cost = PatchCost(max_image_tokens=64, max_frame_tokens=48)
    for width, height in [(1280, 720), (10, 4000), (4000, 10), (28, 28), (1, 1)]:
        assert 1 <= cost.image(width, height).tokens <= 64
        size = cost.frame(width, height, max_tokens=20)
        assert size.tokens <= 20 and size.tokens == size.width * size.height // 28**2
    plan = cost.clip(1280, 720, 100, 500)
    assert plan.frames * plan.size.tokens <= 500 < (plan.frames + 1) * plan.size.tokens
