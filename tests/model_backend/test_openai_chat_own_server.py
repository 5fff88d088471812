"""The client of keyeloop's own server: clips whole, replies raw, pictures by reference, every turn written once."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keyeloop.agent.counting import planned_server
from keyeloop.agent.loading import Loading
from keyeloop.model_backend.base import Request
from keyeloop.model_backend.keye.cost import KEYE_TINY_LIMITS, KeyeVisualCost
from keyeloop.model_backend.keye.template import render
from keyeloop.model_backend.keye.tokenizer import KeyeTokenizer
from keyeloop.model_backend.local.folder import model_folder
from keyeloop.model_backend.openai_chat.backend import OpenAIChat
from keyeloop.model_backend.sglang.plugin.media.chat_messages import prompt_of
from keyeloop.model_backend.sglang.plugin.media.expansion import expand
from keyeloop.model_backend.sglang.plugin.media.pictures import PictureLoader
from keyeloop.model_backend.sglang.plugin.media.store import ReferencedStore
from keyeloop.model_backend.sglang.shared_store import identity_of
from keyeloop.model_backend.sglang.wire import CLIP, read_clip, reference
from keyeloop.runtime.config import Config
from keyeloop.runtime.content import Image, Message, Text, ToolCall, ToolSpec, Video
from keyeloop.runtime.evidence import Region, View
from keyeloop.runtime.media import MediaStore
from tests.model_backend.loopback_server import Play, Received, loopback, said
from tests.model_backend.test_sglang_media_layout import TOKENS

RAW = 'Look.\n</think>\n\n<tool_call>\n{"name": "look",  "arguments": {"at_s":2}}\n</tool_call>'
LOOK = ToolSpec("look", "Look.", {"type": "object", "properties": {"at_s": {"type": "number"}}})


def status(store: Path | None = None, **told: Any) -> dict[str, Any]:
    facts = {
        "clips": True,
        "raw_replies": True,
        "limits": asdict(KEYE_TINY_LIMITS),
        "media_store": store and str(store),
    }
    facts["media_store_identity"] = identity_of(store) if store is not None and store.is_dir() else None
    return {"internal_states": [{"keyeloop": facts | told}]}


def keyeloop_server(*texts: str, info: Any = None) -> Any:
    """Plays a server with the plugin; a reply for each request."""
    replies = list(texts)

    def play(request: Received) -> Play:
        if request.path.endswith("/server_info"):
            assert request.path == "/server_info"
            body = json.dumps(status() if info is None else info).encode()
            return Play(200, {"Content-Type": "application/json"}, (body,))
        return said(replies.pop(0))

    return loopback(play, models=("keye-tiny",), owned_by="sglang", max_model_len=8192)


def picture(media: MediaStore, handle: str, time_s: float) -> Image:
    pixels = np.full((140, 252, 3), int(time_s * 10), np.uint8)
    return Image(media.put_image(pixels), View(handle, "video-1", "5" * 64, time_s, Region(0, 0, 252, 140)))


def looked(media: MediaStore) -> tuple[Message, ...]:
    clip = Video((picture(media, "f1", 2.0), picture(media, "f2", 3.5)))
    return (
        Message("system", (Text("Watch."), Text(" <|im_end|>"))),
        Message("user", (Text("What?"),)),
        Message("user", (Text("Is"), Text(" it?"))),
        Message("assistant", (), reasoning="Look.", tool_calls=(ToolCall("call-1", "look", {"at_s": 2}),), raw=RAW),
        Message("tool", (Text("video-1: f1 at 2.0 s, f2 at 3.5 s"), clip), tool_call_id="call-1"),
        Message("tool", (Text("z1"), picture(media, "z1", 2.0)), tool_call_id="call-2"),
        Message("assistant", (Text("No raw text."),), reasoning="Hm."),
        Message("user", (Text("Sure?"),)),
    )


async def asked(media: MediaStore, info: Any = None) -> dict[str, Any]:
    with keyeloop_server("x", info=info) as server:
        model = OpenAIChat(server.address)
        await model.generate(Request(looked(media), (LOOK,)), media)
        sent: dict[str, Any] = server.received[-1].json
        return sent


@pytest.mark.parametrize("shared", [True, False])
async def test_a_request_is_laid_out_as_the_local_engine_lays_it_out(shared: bool, tmp_path: Path) -> None:
    """From the client's JSON through the server's own reading of it to token ids."""
    media, store = MediaStore(tmp_path / "run"), tmp_path / "store"
    store.mkdir()
    body = await asked(media, status(store if shared else None))
    tokenizer = KeyeTokenizer(model_folder("keye-tiny") / "tokenizer.json")
    assert body["chat_template_kwargs"] == {"raw_replies": True}
    prompt = prompt_of(body["messages"], body["tools"], tokenizer, raw_replies=True)
    loaded = PictureLoader(KEYE_TINY_LIMITS, ReferencedStore(store)).load(prompt.pictures, prompt.clips)
    made = expand(prompt.ids, *loaded, TOKENS, lambda time_s: tokenizer.encode(f"<|frame|>{time_s:.1f}", special=True))
    assert made.ids == tokenizer.lay_out(render(looked(media), [LOOK])).ids
    assert all((asked.url.startswith("keyeloop-media:")) is shared for asked in prompt.pictures)


async def test_a_clip_is_one_part_and_pictures_are_named_by_reference(tmp_path: Path) -> None:
    media, store = MediaStore(tmp_path / "run"), tmp_path / "store"
    store.mkdir()
    body = await asked(media, status(store))
    _, clip = body["messages"][4]["content"]
    frames = read_clip(clip["video_url"]["url"])
    assert [frame.time_s for frame in frames] == [2.0, 3.5]
    shown = looked(media)[4].parts[1]
    assert isinstance(shown, Video)
    assert [frame.url for frame in frames] == [reference(image.media.sha256) for image in shown.frames]
    assert {path.name for path in store.rglob("*") if path.is_file()} == {image.media.sha256 for image in shown.frames}
    assert "base64" not in json.dumps(body)


async def test_without_a_shared_store_pictures_travel_by_value(tmp_path: Path) -> None:
    body = await asked(MediaStore(tmp_path), status(None))
    frames = read_clip(body["messages"][4]["content"][1]["video_url"]["url"])
    assert all(frame.url.startswith("data:image/jpeg;base64,") for frame in frames)


@pytest.mark.parametrize("elsewhere", ["not here", "another machine", "not to be written to"])
async def test_a_store_that_is_not_shared_is_done_without(elsewhere: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    if elsewhere != "not here":
        store.mkdir()
    told = {"media_store_identity": "1:2:another boot"} if elsewhere == "another machine" else {}
    info = status(store, **told)
    if elsewhere == "not to be written to":
        store.rmdir()
        store.touch()
    body = await asked(MediaStore(tmp_path / "run"), info)
    assert read_clip(body["messages"][4]["content"][1]["video_url"]["url"])[0].url.startswith("data:image/jpeg;base64,")


async def test_what_the_model_said_comes_and_goes_back_verbatim(tmp_path: Path) -> None:
    media = MediaStore(tmp_path)
    with keyeloop_server(RAW, "cut while th") as server:
        model = OpenAIChat(server.address)
        assert model.count_tokens(Request(looked(media))).visual_tokens == 3 * 45
        first = Request((Message("user", (Text("What?"),)),), (LOOK,))
        reply = await model.generate(first, media)
        assert reply.message.raw == RAW
        assert (reply.message.reasoning, reply.message.tool_calls[0].arguments) == ("Look.", {"at_s": 2})
        await model.generate(Request((*first.messages, reply.message)), media)
        assert server.received[-1].json["messages"][1] == {"role": "assistant", "content": RAW}


async def test_every_turn_is_written_once(tmp_path: Path) -> None:
    media = MediaStore(tmp_path)
    history = looked(media)
    with keyeloop_server(*["x"] * 3) as server:
        model = OpenAIChat(server.address)
        counts = []
        for count in (5, 7, 8):
            await model.generate(Request(history[:count], (LOOK,)), media)
            counts.append(model._writer.written)
        bodies = [received.json["messages"] for received in server.received[-3:]]
    assert counts == [6, 8, 9]
    assert bodies[2][:5] == bodies[1][:5] == bodies[0]


async def test_the_server_tells_what_it_can_and_nothing_is_tried_out(tmp_path: Path) -> None:
    with keyeloop_server() as server:
        capabilities = OpenAIChat(server.address).capabilities()
        paths = [received.path for received in server.received]
    assert capabilities.native_video and capabilities.tool_images and capabilities.context_tokens == 8192
    assert isinstance(capabilities.cost, KeyeVisualCost) and capabilities.cost.limits == KEYE_TINY_LIMITS
    assert [path for path in paths if "models" not in path] == ["/server_info"]


def test_a_plan_asks_what_the_server_says_and_counts_as_it_does(tmp_path: Path) -> None:
    """Also where the served tokenizer is not here: pictures are never a guess at keyeloop's own server."""
    media, tiny = MediaStore(tmp_path), model_folder("keye-tiny")
    request = Request(looked(media), (LOOK,))
    exact = len(KeyeTokenizer(tiny / "tokenizer.json").lay_out(render(looked(media), [LOOK])).ids)
    for folder, counted in ((str(tiny), exact), ("/nowhere", None)):
        with keyeloop_server(info=status() | {"tokenizer_path": folder}) as server:
            planned = planned_server(Config(model=server.address))
            usage = planned.count_tokens(request)
            assert Loading(server.address, Config()).pictures_note(planned) == "", "it is known that it takes them"
            assert [received.path for received in server.received] == ["/server_info"]
        assert planned.capabilities().native_video and usage.visual_tokens == 3 * 45
        assert usage.input_tokens == counted if counted else usage.input_tokens != exact


async def test_an_exact_count_is_still_held_to_the_servers_own(tmp_path: Path) -> None:
    """Such as where its template says more than ours, or a picture is resized there."""
    media = MediaStore(tmp_path)
    asked, odd = Message("user", (Text("What?"),)), np.zeros((100, 100, 3), np.uint8)
    with keyeloop_server("x", info=status() | {"model_path": str(model_folder("keye-tiny"))}) as server:
        model = OpenAIChat(server.address)
        before = model.count_tokens(Request((asked,))).input_tokens
        await model.generate(Request((asked,)), media)
        assert model.count_tokens(Request((asked,))).input_tokens == 10 != before, "the server counted 10"
        again = Request((asked, Message("assistant", (Text("x"),)), asked))
        assert model.count_tokens(again).input_tokens > 10
        unfit = Request((Message("user", (Image(media.put_image(odd), None),)),))
        assert model.count_tokens(unfit).visual_tokens == 100 * 100 // 784


@pytest.mark.parametrize(
    "info",
    [{}, [], {"internal_states": []}, {"internal_states": [{}]}, {"internal_states": [3]}, status(clips=False),
     status(raw_replies="yes")],
)  # fmt: skip
async def test_another_sglang_server_is_asked_as_any_other(info: Any) -> None:
    with keyeloop_server(*["x"] * 4, info=info) as server:
        assert not OpenAIChat(server.address).capabilities().native_video


async def test_what_was_set_by_hand_wins(tmp_path: Path) -> None:
    with keyeloop_server("x") as server:
        model = OpenAIChat(server.address, pictures="tool", call_form="native")
        media = MediaStore(tmp_path)
        await model.generate(Request(looked(media)), media)
        assert not model.capabilities().native_video
        assert CLIP not in json.dumps(server.received[-1].json)
