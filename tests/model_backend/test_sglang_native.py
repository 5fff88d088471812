"""The client of SGLang's own interface, against a loopback server that speaks it in keye-tiny's tokens."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keyeloop.agent.agent import Agent
from keyeloop.agent.counting import counting_model
from keyeloop.agent.models import check_model, configured_model, load_model
from keyeloop.model_backend.base import Delta, Reply, Request, Sampling
from keyeloop.model_backend.local.prompt import PromptBuilder
from keyeloop.model_backend.served import sending
from keyeloop.model_backend.sglang.native.backend import SGLangNative
from keyeloop.model_backend.sglang.shared_store import identity_of
from keyeloop.model_backend.sglang.wire import clip_url, read_clip
from keyeloop.runtime.config import load_config
from keyeloop.runtime.content import Image, Message, Part, Text, ToolSpec, TurnTokens, Video
from keyeloop.runtime.errors import BackendError, InputError, ModelRequestForbidden
from keyeloop.runtime.events import ReplyReceived
from keyeloop.runtime.evidence import Region
from keyeloop.runtime.media import MediaStore
from keyeloop.runtime.trajectory import Trajectory
from keyeloop.runtime.views import ViewBook
from keyeloop.testing import forbid_model_requests
from tests.agent.small_tools import add
from tests.model_backend.loopback_server import LoopbackServer, Play, Received, failed
from tests.model_backend.native_replies import END, FOLDER, TOKENIZER, events, generated, logprob, native_server, spoken

ADD = ToolSpec("add", "Add.", {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
QUESTION = Request((Message("system", (Text("Be brief."),)), Message("user", (Text("How many?"),))), (ADD,))
THOUGHT = "two and two\n</think>\n\n4 boards"
CALL = 'look\n</think>\n\n<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "FIRST_PAUSE_S", 0.01)


def saying(*texts: str, **how: Any) -> Callable[[Received], Play]:
    """Answer each request with the next text."""
    rest = iter(texts)
    return lambda request: generated(next(rest), len(request.json["input_ids"]), **how)


async def reply_to(
    server: LoopbackServer, folder: Path, request: Request = QUESTION, deltas: list[Delta] | None = None, **options: Any
) -> Reply:
    model = SGLangNative(f"{server.native}#keye-tiny", tries=3, **options)
    return await model.generate(request, MediaStore(folder), None if deltas is None else deltas.append)


def pictures(media: MediaStore) -> tuple[Image, Video]:
    """A still and a clip of two frames, of keye-tiny's sizes."""
    views = ViewBook()

    def shown(grey: int, time_s: float) -> Image:
        ref = media.put_image(np.full((140, 252, 3), grey, np.uint8))
        return Image(ref, views.frame("video-1", "0" * 64, time_s, Region(0, 0, 1280, 720)))

    return shown(10, 5.0), Video((shown(20, 83.0), shown(30, 84.0)))


@pytest.mark.parametrize("new_only", [False, True])
async def test_a_reply_in_tokens(new_only: bool, tmp_path: Path) -> None:
    deltas: list[Delta] = []
    play = saying(THOUGHT, new_only=new_only, cached=16)
    with native_server(play, incremental_streaming_output=new_only) as server:
        reply = await reply_to(server, tmp_path, deltas=deltas)
    sent = server.received[0]
    local = PromptBuilder(TOKENIZER).build(QUESTION)
    assert sent.path == "/generate" and sent.json["input_ids"] == local.ids
    assert (reply.message.text, reply.message.reasoning, reply.finish) == ("4 boards", "two and two", "stop")
    assert reply.message.raw == THOUGHT
    ids = spoken(THOUGHT)
    assert reply.tokens == TurnTokens(tuple(local.ids), tuple(ids), tuple(map(logprob, range(len(ids)))))
    usage = reply.usage
    assert (usage.input_tokens, usage.cached_tokens, usage.output_tokens) == (len(local.ids), 16, len(ids))
    assert usage.reasoning_tokens == ids.index(TOKENIZER.id_of("</think>"))
    said = {kind: "".join(delta.text for delta in deltas if delta.kind == kind) for kind in ("reasoning", "text")}
    assert said == {"reasoning": "two and two", "text": "4 boards"}
    assert reply.first_token_s is not None and 0 < reply.first_token_s < 10
    assert sent.json["return_logprob"] is True and sent.json["stream"] is True
    params = sent.json["sampling_params"]
    assert (params["temperature"], params["max_new_tokens"], params["top_k"]) == (0.0, 1024, -1)
    assert params["stop_token_ids"] == [END] and "logit_bias" not in params
    held = {"begin": '<tool_call>\n{"name": "add", "arguments": ', "schema": ADD.parameters, "end": "}\n</tool_call>"}
    tag = {"type": "structural_tag", "structures": [held], "triggers": ["<tool_call>"]}
    assert json.loads(params["structural_tag"]) == tag and sent.json["require_reasoning"] is True
    assert params["stream_interval"] == (1 if new_only else 16)


async def test_an_answer_is_asked_for(tmp_path: Path) -> None:
    request = Request(QUESTION.messages, (ADD,), Sampling(0.7, 0.9, 20, 64, seed=7), allow_calls=False)
    with native_server(saying(THOUGHT)) as server:
        await reply_to(server, tmp_path, request)
    params = server.received[0].json["sampling_params"]
    assert params["logit_bias"] == {str(TOKENIZER.id_of("<tool_call>")): -100.0}
    assert "structural_tag" not in params and "require_reasoning" not in server.received[0].json
    assert [params[name] for name in ("temperature", "top_p", "top_k", "sampling_seed")] == [0.7, 0.9, 20, 7]
    assert server.received[0].json["input_ids"] == PromptBuilder(TOKENIZER).build(QUESTION).ids, "tools stay"


async def test_a_schema_that_the_server_cannot_hold_is_left_to_the_check_of_the_call(tmp_path: Path) -> None:
    refusal = "Failed to compile structural_tag grammar: unsupported type"

    def play(request: Received) -> Play:
        if "structural_tag" in request.json["sampling_params"]:
            return failed(400, refusal)
        return generated(THOUGHT, len(request.json["input_ids"]))

    with native_server(play) as server:
        model = SGLangNative(f"{server.native}#keye-tiny", tries=3)
        for _ in range(2):
            assert (await model.generate(QUESTION, MediaStore(tmp_path))).message.text == "4 boards"
        held = ["structural_tag" in request.json["sampling_params"] for request in server.received]
        assert held == [True, False, False], "it is not asked for twice"
        free = SGLangNative(f"{server.native}#keye-tiny", hold_calls=False)
        assert model.capabilities().constrained_calls and not free.capabilities().constrained_calls
        await free.generate(QUESTION, MediaStore(tmp_path))
        assert len(server.received) == 4
    without: list[dict[str, Any]] = [{"device": "cpu", "version": "0.5.17"}, {"grammar_backend": "none"}]
    for info in without:
        with native_server(saying(THOUGHT), **info) as server:
            await reply_to(server, tmp_path)
        assert "structural_tag" not in server.received[0].json["sampling_params"], info
    with (
        native_server(lambda _: failed(400, "input_ids holds what is no token")) as server,
        pytest.raises(BackendError, match="no token"),
    ):
        await reply_to(server, tmp_path)
    assert len(server.received) == 1


async def test_a_reply_that_is_cut(tmp_path: Path) -> None:
    def play(request: Received) -> Play:
        return Play(pieces=tuple(events(spoken(THOUGHT)[:4], len(request.json["input_ids"]), kind="length")))

    with native_server(play) as server:
        reply = await reply_to(server, tmp_path)
    assert reply.finish == "length" and not reply.message.text
    assert reply.tokens is not None and reply.tokens.ids == tuple(spoken(THOUGHT)[:4])


async def test_half_a_character_at_the_end_of_a_reply(tmp_path: Path) -> None:
    ids = spoken("</think>\n\né")[:-1]  # a byte-level tokenizer: the letter is two tokens
    assert len(TOKENIZER.encode("é", special=False)) == 2

    def play(request: Received) -> Play:
        return Play(pieces=tuple(events(ids[:-1], len(request.json["input_ids"]), kind="length", step=1)))

    with native_server(play) as server:
        reply = await reply_to(server, tmp_path)
    assert reply.message.text == "�"


async def test_pictures_travel_by_value(tmp_path: Path) -> None:
    media = MediaStore(tmp_path)
    still, clip = pictures(media)
    parts: tuple[Part, ...] = (Text("look"), clip, still, Text("?"))
    request = Request((Message("user", parts),))
    with native_server(saying(THOUGHT)) as server:
        reply = await reply_to(server, tmp_path, request)
    sent = server.received[0].json
    local = PromptBuilder(TOKENIZER).build(request)
    assert sent["input_ids"] == local.ids and reply.usage.visual_tokens == local.usage.visual_tokens == 3 * 45
    url = sent["image_data"][0]
    assert base64.b64decode(url.removeprefix("data:image/jpeg;base64,")) == media.read(still.media.sha256)
    frames = read_clip(sent["video_data"][0])
    assert [frame.time_s for frame in frames] == [83.0, 84.0]
    assert sent["video_data"] == [clip_url(frames)], "the very bytes of the plugin's own writer"


async def test_pictures_travel_by_reference(tmp_path: Path) -> None:
    media, shared = MediaStore(tmp_path / "media"), tmp_path / "shared"
    shared.mkdir()
    still, clip = pictures(media)
    request = Request((Message("user", (still, clip)),))
    with native_server(
        saying(THOUGHT, THOUGHT), status={"media_store": str(shared), "media_store_identity": identity_of(shared)}
    ) as server:
        model = SGLangNative(f"{server.native}#keye-tiny")
        for _ in range(2):
            await model.generate(request, media)
    for received in server.received:
        assert received.json["image_data"] == [f"keyeloop-media:{still.media.sha256}"]
        frames = read_clip(received.json["video_data"][0])
        assert [frame.url for frame in frames] == [f"keyeloop-media:{frame.media.sha256}" for frame in clip.frames]
    assert sorted(path.name for path in shared.rglob("*") if path.is_file()) == sorted(
        image.media.sha256 for image in (still, *clip.frames)
    )
    assert MediaStore(shared).read(still.media.sha256) == media.read(still.media.sha256)


async def test_a_store_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    media = MediaStore(tmp_path / "media")
    still, _ = pictures(media)
    with native_server(saying(THOUGHT), status={"media_store": str(tmp_path / "not-there")}) as server:
        await reply_to(server, tmp_path / "media", Request((Message("user", (still,)),)))
    assert server.received[0].json["image_data"][0].startswith("data:image/jpeg;base64,")
    assert not (tmp_path / "not-there").exists()


async def test_a_picture_that_cannot_be_laid_out(tmp_path: Path) -> None:
    media = MediaStore(tmp_path)
    odd = Image(media.put_image(np.zeros((100, 100, 3), np.uint8)))
    with native_server(saying(THOUGHT)) as server, pytest.raises(BackendError, match=r"100x100 .*multiples of 28"):
        await reply_to(server, tmp_path, Request((Message("user", (odd,)),)))
    assert not server.received


async def test_a_run_whose_tokens_are_in_its_record(tmp_path: Path) -> None:
    with native_server(saying(CALL, THOUGHT)) as server:
        agent = Agent(f"{server.native}#keye-tiny", tools=[add], runs=tmp_path)
        answer = await agent.run("What is 1 + 2?")
        await agent.close()
    assert str(answer) == "4 boards"
    run = Trajectory.read(answer.run)
    assert run.start.model == f"{server.native}#keye-tiny"
    first, second = (item.json["input_ids"] for item in server.received)
    before = first + spoken(CALL)
    assert second[: len(before)] == before, "a request begins with the tokens of the one before it and its reply"
    replies = [item.tokens for item in run.events if isinstance(item, ReplyReceived)]
    one, two = replies
    assert one is not None and two is not None and (one.kept, two.kept) == (0, len(before))
    assert list(one.sequence()) == before and two.ids == tuple(spoken(THOUGHT))
    assert list(two.sequence(one.sequence())) == second + spoken(THOUGHT)
    assert answer.usage.output_tokens == len(spoken(CALL)) + len(spoken(THOUGHT))


def test_a_turn_behind_another_prompt() -> None:
    before = TurnTokens((1, 2, 3), (4, 5), (-0.1, -0.2)).sequence()
    grown = TurnTokens((1, 2, 3, 4, 5, 6), (7,), (-0.3,)).after(before)
    assert (grown.kept, grown.prompt_ids, grown.sequence(before)) == (5, (6,), (1, 2, 3, 4, 5, 6, 7))
    edited = TurnTokens((1, 9, 3, 4), (7,), (-0.3,)).after(before)
    assert (edited.kept, edited.prompt_ids, edited.sequence(before)) == (1, (9, 3, 4), (1, 9, 3, 4, 7))
    shorter = TurnTokens((1, 2), (7,), (-0.3,)).after(before)
    assert (shorter.kept, shorter.prompt_ids, shorter.sequence(before)) == (2, (), (1, 2, 7))


async def test_a_server_of_another_model(tmp_path: Path) -> None:
    with native_server(saying(THOUGHT)) as server:
        server.pages["/model_info"]["architectures"] = ["LlamaForCausalLM"]
        with pytest.raises(InputError, match=r"serves LlamaForCausalLM.* ask it as http://127.0.0.1:\d+/v1"):
            await reply_to(server, tmp_path)
        del server.pages["/model_info"]
        with pytest.raises((InputError, BackendError)):
            await reply_to(server, tmp_path)


async def test_a_model_that_the_server_names(tmp_path: Path) -> None:
    with native_server(saying(THOUGHT), max_total_num_tokens=4096) as server:
        model = SGLangNative(server.native)
        assert (await model.generate(QUESTION, MediaStore(tmp_path))).message.text == "4 boards"
        capabilities = model.capabilities()
        server.pages["/model_info"]["tokenizer_path"] = "/no/such/folder"
        with pytest.raises(InputError, match=r"has no config.json and no tokenizer.json.*#FOLDER"):
            await SGLangNative(server.native).generate(QUESTION, MediaStore(tmp_path))
    assert (capabilities.model, capabilities.context_tokens) == (f"{server.native}#{FOLDER}", 4096)
    assert capabilities.native_video and capabilities.tool_images


def test_one_grammar(tmp_path: Path) -> None:
    model = load_model("sglang://127.0.0.1:9#keye-tiny")
    assert isinstance(model, SGLangNative) and str(model.address) == "sglang://127.0.0.1:9#keye-tiny"
    assert model.address.base == "http://127.0.0.1:9" and model.address.loopback
    assert load_model("sglang+https://h#keye-tiny").address.base == "https://h"  # type: ignore[attr-defined]
    for wrong in ("sglang://", "sglang://h:x", "sglang://u:p@h", "sglang+ftp://h"):
        with pytest.raises(InputError, match=r"write (sglang://host:port#name|http)"):
            check_model(wrong)
    config = load_config({"model": "sglang://h#keye-tiny", "read_seconds": 7, "tries": 2}, environment={})
    configured = configured_model(config)
    assert isinstance(configured, SGLangNative)
    assert configured._sender._timeouts.read_s == 7 and configured._sender._tries == 2
    counted = counting_model("sglang://127.0.0.1:9#keye-tiny").count_tokens(QUESTION)
    assert counted == PromptBuilder(TOKENIZER).build(QUESTION).usage


async def test_it_is_a_real_model(tmp_path: Path) -> None:
    with native_server(saying(THOUGHT)) as server, forbid_model_requests(), pytest.raises(ModelRequestForbidden):
        await reply_to(server, tmp_path)
