"""Pictures on their way to a server: where they stand, encoded once, probed for, counted."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keyeloop.agent.agent import Agent
from keyeloop.model_backend.base import Request
from keyeloop.model_backend.keye.cost import KEYE_2_LIMITS, KeyeVisualCost
from keyeloop.model_backend.openai_chat.backend import OpenAIChat, visual_cost
from keyeloop.model_backend.openai_chat.messages import PicturePlace
from keyeloop.model_backend.scripted import PatchCost
from keyeloop.runtime.content import Image, Message, Text, ToolCall, Video
from keyeloop.runtime.errors import BackendError
from keyeloop.runtime.evidence import Region, View
from keyeloop.runtime.media import MediaStore
from tests.agent.small_tools import look
from tests.model_backend.loopback_server import Play, Received, called, failed, loopback, said

SIDE_PX = 56


def picture(media: MediaStore, handle: str, time_s: float) -> Image:
    pixels = np.full((SIDE_PX, SIDE_PX, 3), int(time_s) * 10, np.uint8)
    view = View(handle, "video-1", "5" * 64, time_s, Region(0, 0, SIDE_PX, SIDE_PX))
    return Image(media.put_image(pixels), view)


def looked(media: MediaStore) -> Request:
    """A clip in one tool's result, a crop in another's."""
    clip = Video((picture(media, "f1", 2.0), picture(media, "f2", 3.5)))
    calls = (ToolCall("call-1", "clip_video", {}), ToolCall("call-2", "zoom", {}))
    return Request(
        (
            Message("user", (Text("What?"),)),
            Message("assistant", tool_calls=calls),
            Message("tool", (Text("video-1: f1 at 2.0 s, f2 at 3.5 s"), clip), tool_call_id="call-1"),
            Message("tool", (Text("z1: f1 box 0,0,9,9"), picture(media, "z1", 2.0)), tool_call_id="call-2"),
            Message("user", (Text("Error: answer."),)),
        )
    )


async def sent(folder: Path, place: PicturePlace) -> list[dict[str, Any]]:
    media = MediaStore(folder)
    with loopback([said("4")]) as server:
        model = OpenAIChat(server.address + "#m", context_tokens=4096, pictures=place, call_form="native")
        await model.generate(looked(media), media)
        found: list[dict[str, Any]] = server.received[0].json["messages"]
        return found


def outline(content: str | list[dict[str, Any]]) -> list[str]:
    """Texts as they are, pictures as ``*``."""
    if isinstance(content, str):
        return [content]
    return [item["text"] if item["type"] == "text" else "*" for item in content]


async def test_pictures_inside_tool_turns(tmp_path: Path) -> None:
    _, _, clip, zoom, notice = await sent(tmp_path, "tool")
    assert outline(clip["content"]) == ["video-1: f1 at 2.0 s, f2 at 3.5 s", "f1 at 2.0 s:", "*", "f2 at 3.5 s:", "*"]
    assert outline(zoom["content"]) == ["z1: f1 box 0,0,9,9", "*"]
    assert notice == {"role": "user", "content": "Error: answer."}


async def test_pictures_in_a_user_turn_behind_all_results(tmp_path: Path) -> None:
    _, _, clip, zoom, user = await sent(tmp_path, "user")
    assert "f1 at 2.0 s, f2 at 3.5 s: the pictures are in the next message" in clip["content"]
    assert "z1 at 2.0 s: the picture is in the next message" in zoom["content"]
    assert user["role"] == "user"
    assert outline(user["content"]) == [
        "f1 at 2.0 s:", "*", "f2 at 3.5 s:", "*", "z1 at 2.0 s:", "*", "\n\n", "Error: answer.",
    ]  # fmt: skip


async def test_pictures_left_out(tmp_path: Path) -> None:
    messages = await sent(tmp_path, "omit")
    assert "image_url" not in json.dumps(messages)
    assert "(f2 at 3.5 s: not shown)" in messages[2]["content"]


async def test_bytes_arrive_as_they_were_stored_and_are_encoded_once(tmp_path: Path, monkeypatch: Any) -> None:
    media = MediaStore(tmp_path)
    reads: list[str] = []
    read = media.read

    def noted(sha256: str) -> bytes:
        reads.append(sha256)
        return read(sha256)

    monkeypatch.setattr(media, "read", noted)
    request = looked(media)
    with loopback([said("4"), said("4")]) as server:
        model = OpenAIChat(server.address + "#m", context_tokens=4096, pictures="tool", call_form="native")
        await model.generate(request, media)
        await model.generate(request, media)
        first, again = (received.json["messages"] for received in server.received)
    assert first == again
    shown = request.messages[2].parts[1]
    assert isinstance(shown, Video)
    url = first[2]["content"][2]["image_url"]["url"]
    assert base64.b64decode(url.removeprefix("data:image/jpeg;base64,")) == read(shown.frames[0].media.sha256)
    assert len(reads) == len(set(reads)) == 2  # f1 and z1 hold the same bytes


def seeing(tokens: int, refuses: tuple[str, ...] = (), status: int = 400) -> Any:
    """A server that counts 100 tokens for words, 40 for tools and ``tokens`` for a picture, refused in some roles."""

    def play(request: Received) -> Play:
        last = request.json["messages"][-1]
        pictured = any(item["type"] == "image_url" for item in last["content"] if not isinstance(item, str))
        if pictured and last["role"] in refuses:
            return failed(status, "image input is not supported")
        return said("x", prompt=100 + 40 * ("tools" in request.json) + tokens * pictured)

    return play


@pytest.mark.parametrize(
    ("play", "tool_images", "asked"),
    [
        (seeing(16), True, 3),
        (seeing(0), False, 4),  # the template lost the picture without a word
        (seeing(16, ("tool",)), False, 4),
        (seeing(16, ("tool",), 500), False, 4),
    ],
)
async def test_the_probe_finds_where_pictures_may_stand(
    play: Any, tool_images: bool, asked: int, tmp_path: Path
) -> None:
    with loopback(play, max_model_len=5000) as server:
        model = OpenAIChat(server.address)
        capabilities = model.capabilities()
        assert (capabilities.tool_images, capabilities.context_tokens) == (tool_images, 5000)
        assert len(server.received) == asked
        media = MediaStore(tmp_path)
        await model.generate(looked(media), media)
        last = server.received[-1].json["messages"]
    assert ("*" in outline(last[2]["content"])) is tool_images
    assert ("*" in outline(last[4]["content"])) is not tool_images


async def test_a_model_that_sees_nothing_is_told_when_it_matters(tmp_path: Path) -> None:
    media = MediaStore(tmp_path)
    with loopback(seeing(0, ("tool", "user"), 500)) as server:
        model = OpenAIChat(server.address)
        words = Request((Message("user", (Text("Hello"),)),))
        assert (await model.generate(words, media)).message.text == "x"
        with pytest.raises(BackendError, match=r"#m takes no pictures: .*set pictures to 'omit'"):
            await model.generate(looked(media), media)


def test_pictures_that_are_not_sent_cost_words_only(tmp_path: Path) -> None:
    request = looked(MediaStore(tmp_path))
    address = "http://127.0.0.1:1/v1#m"
    seen = OpenAIChat(address, context_tokens=99, pictures="user", call_form="native")
    unseen = OpenAIChat(address, context_tokens=99, pictures="omit", call_form="native")
    assert seen.count_tokens(request).visual_tokens == 3 * 4
    assert unseen.count_tokens(request).visual_tokens == 0


async def test_what_is_set_is_not_probed() -> None:
    with loopback([]) as server:
        model = OpenAIChat(server.address + "#m", context_tokens=100, pictures="user", call_form="native")
        assert not model.capabilities().tool_images
        assert not server.received


def test_picture_arithmetic_follows_the_models_name() -> None:
    keye = visual_cost("Kwai-Keye/Keye-VL-2.0-30B-A3B")
    assert isinstance(keye, KeyeVisualCost)
    assert keye.limits == KEYE_2_LIMITS
    assert isinstance(visual_cost("qwen"), PatchCost)
    assert visual_cost("qwen").image(280, 280).tokens == 100


async def test_counts_are_held_to_the_servers_own(tmp_path: Path) -> None:
    media = MediaStore(tmp_path)
    request = looked(media)
    with loopback([said("4", prompt=700)]) as server:
        model = OpenAIChat(server.address + "#m", context_tokens=4096, pictures="tool", call_form="native")
        assert model.count_tokens(request).input_tokens < 200
        reply = await model.generate(request, media)
        assert reply.usage.input_tokens == 700
        assert model.count_tokens(request).input_tokens == 700
        longer = Request((*request.messages, reply.message, Message("user", (Text("Sure? " * 10),))))
        assert 710 < model.count_tokens(longer).input_tokens < 900
        more = Request((*longer.messages, Message("user", (picture(media, "f3", 9.0),))))
        assert model.count_tokens(more).visual_tokens > model.count_tokens(longer).visual_tokens


async def test_a_run_looks_through_http(tmp_path: Path) -> None:
    def play(request: Received) -> Play:
        if request.json["messages"][-1]["role"] != "tool" or request.json["max_tokens"] == 1:
            return seeing(16)(request) if request.json["max_tokens"] == 1 else called("look", '{"at_s": 7}', 50)
        return said("grey [f1]", prompt=170)

    with loopback(play) as server:
        answer = await Agent(server.address, [look], runs=tmp_path).run("What is there?")
    assert (str(answer), answer.status) == ("grey", "answered")
    assert answer.citations[0].handle == "f1" and answer.citations[0].seen
    assert outline(server.received[-1].json["messages"][-1]["content"]) == ["f1 at 7.0 s", "*"]
    assert answer.usage.visual_tokens > 0


async def test_a_context_smaller_than_listed_costs_old_pictures_not_the_run(tmp_path: Path) -> None:
    """The server refuses a third picture: the run drops what it saw before, and goes on."""
    shown: list[int] = []

    def play(request: Received) -> Play:
        pictures = json.dumps(request.json["messages"]).count('"image_url": {')
        shown.append(pictures)
        if pictures > 2:
            return failed(400, "This model's maximum context length is 700 tokens")
        return said("grey [f3]", prompt=500) if 3 in shown else called("look", f'{{"at_s": {len(shown)}}}', 300)

    with loopback(play) as server:
        model = OpenAIChat(server.address + "#m", context_tokens=8000, pictures="tool", call_form="native")
        answer = await Agent(model, [look], runs=tmp_path).run("What is there?")
    assert (str(answer), answer.status, shown[:4]) == ("grey", "answered", [0, 1, 2, 3])
    assert shown[-1] < 3
