"""The native client with a real server: the demo in exact tokens, its cache, its probabilities, what it may not do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from keyeloop.agent.agent import Agent
from keyeloop.agent.cli.demo import bundled_question
from keyeloop.agent.exporting.pictures import ExportedPictures
from keyeloop.agent.exporting.tokens import outputs_of, prompts_of, token_rows
from keyeloop.model_backend.base import Delta, Reply, Request, Sampling
from keyeloop.model_backend.local.engine import LocalBackend
from keyeloop.model_backend.sglang.native.backend import SGLangNative
from keyeloop.runtime.content import Message, Part, Text, TurnTokens
from keyeloop.runtime.errors import BackendError
from keyeloop.runtime.events import ReplyReceived
from keyeloop.runtime.media import MediaStore
from keyeloop.runtime.trajectory import Trajectory
from tests.sglang.prompts import Painter
from tests.sglang.served import Served, start, wait_until_up

pytestmark = [pytest.mark.sglang, pytest.mark.timeout(600)]
KEY = "a-key-of-this-test"


def address(url: str) -> str:
    return url.replace("http://", "sglang://") + "#keye-tiny"


@pytest.fixture(scope="module")
def sharing(sglang_here: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server with a key that reads a store of this machine and streams new tokens only."""
    folder = tmp_path_factory.mktemp("sharing")
    (folder / "store").mkdir()
    flags = ["--api-key", KEY, "--incremental-streaming-output"]
    server, url = start(folder / "server.log", flags, {"KEYELOOP_MEDIA_STORE": str(folder / "store")})
    with server:
        wait_until_up(server, url, KEY)
        yield url, folder / "store"


class Noting(SGLangNative):
    """Keeps the tokens of every turn: the prompt as it was sent, and what the server drew."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.told: list[TurnTokens] = []

    async def generate(
        self, request: Request, media: MediaStore, on_delta: Callable[[Delta], None] | None = None
    ) -> Reply:
        reply = await super().generate(request, media, on_delta)
        assert reply.tokens is not None
        self.told.append(reply.tokens)
        return reply


async def test_the_demo_in_exact_tokens(served: Served, tmp_path: Path) -> None:
    served.forget()
    video, question, expected = bundled_question()
    model = Noting(address(served.url))
    answer = await Agent(model, runs=tmp_path / "served").run(question, video=video)
    await model.close()
    assert (answer.status, str(answer).strip()) == ("answered", expected)
    assert answer.citations and all(citation.seen for citation in answer.citations)
    replies = [event for event in Trajectory.read(answer.run).events if isinstance(event, ReplyReceived)]
    before: tuple[int, ...] = ()
    for reply in replies:
        assert reply.tokens is not None and reply.tokens.kept == len(before), "each request begins with all before it"
        assert reply.usage.cached_tokens >= len(before) - 1
        assert len(reply.tokens.ids) == len(reply.tokens.logprobs) == reply.usage.output_tokens
        assert all(-math.log(len(model.reading.words.vocabulary.tokens)) < one <= 0 for one in reply.tokens.logprobs)
        before = reply.tokens.sequence(before)
    assert len(replies) > 1
    (row,) = token_rows(Trajectory.read(answer.run), ExportedPictures(None))
    assert prompts_of(row) == [list(reply.prompt_ids) for reply in model.told], "as sent, and counted by the server"
    assert outputs_of(row) == [list(reply.ids) for reply in model.told], "as drawn"
    assert sum(row["loss_mask"]) == answer.usage.output_tokens and row["images"]
    local = await Agent("keye-tiny", runs=tmp_path / "local").run(question, video=video)
    assert str(local) == str(answer) and local.usage.output_tokens <= answer.usage.output_tokens


async def test_a_clip_and_a_still_are_what_the_local_model_sees(
    served: Served, painter: Painter, store: MediaStore
) -> None:
    parts: tuple[Part, ...] = (Text("Look:"), painter.clip([1, 2, 3], 80.0), painter.picture(4), Text("What is it?"))
    request = Request((Message("user", parts),), sampling=Sampling(max_tokens=24))
    deltas: list[Delta] = []
    model, local = SGLangNative(address(served.url)), LocalBackend.load("keye-tiny", device="cpu")
    here, there = await local.generate(request, store), await model.generate(request, store, deltas.append)
    await model.close()
    await local.close()
    assert there.message == here.message and there.finish == here.finish
    assert there.usage.visual_tokens == here.usage.visual_tokens == 4 * 45
    assert "".join(delta.text for delta in deltas).strip() == (here.message.reasoning + here.message.text).strip()


async def test_pictures_go_by_name_and_tokens_come_one_by_one(
    sharing: tuple[str, Path], painter: Painter, store: MediaStore
) -> None:
    url, shared = sharing
    request = Request((Message("user", (painter.clip([5, 6], 3.0), Text("?"))),), sampling=Sampling(max_tokens=40))
    pieces: list[Delta] = []
    model = SGLangNative(address(url), api_key=KEY)
    first = await model.generate(request, store, pieces.append)
    again = await model.generate(request, store)
    await model.close()
    assert first.tokens == again.tokens and again.usage.cached_tokens == again.usage.input_tokens - 1
    assert len(pieces) > 4 and len([file for file in shared.rglob("*") if file.is_file()]) == 2


async def test_a_request_without_the_key_is_refused(sharing: tuple[str, Path], store: MediaStore) -> None:
    model = SGLangNative(address(sharing[0]), api_key="another-key", tries=1)
    with pytest.raises(BackendError, match=r"answered 401.*KEYELOOP_API_KEY"):
        await model.generate(Request((Message("user", (Text("?"),)),)), store)


async def test_calls_are_held_to_their_schema_and_what_fits_it_stays(served: Served, tmp_path: Path) -> None:
    """The schema is made narrower than what the model would ask for, in what it is shown as well."""
    video, question, _ = bundled_question()
    held, free = SGLangNative(address(served.url)), SGLangNative(address(served.url), hold_calls=False)
    answer = await Agent(held, runs=tmp_path).run(question, video=video)
    run = Trajectory.read(answer.run)
    media, opening, tools = MediaStore(answer.run / "media"), run.messages()[:2], run.start.tools
    asked = Request(opening, tools, Sampling(max_tokens=200))
    same = [await model.generate(asked, media) for model in (held, free)]
    assert same[0].message == same[1].message and same[0].message.tool_calls
    called = same[0].message.tool_calls[0]
    tool = next(tool for tool in tools if tool.name == called.name)
    narrow = {**tool.parameters, "properties": {**tool.parameters["properties"], "start_s": {"enum": [701, 907]}}}
    narrower = Request(opening, (replace(tool, parameters=narrow),), Sampling(max_tokens=200))
    fits = {}
    for model, holds in ((held, True), (free, False)):
        calls = (await model.generate(narrower, media)).message.tool_calls
        assert calls and calls[0].name == tool.name
        fits[holds] = [Draft202012Validator(narrow).is_valid(dict(call.arguments)) for call in calls]
        await model.close()
    assert all(fits[True]) and not all(fits[False])


async def test_where_no_call_is_allowed_none_is_made(served: Served, tmp_path: Path) -> None:
    video, question, _ = bundled_question()
    model = SGLangNative(address(served.url))
    answer = await Agent(model, runs=tmp_path).run(question, video=video)
    run = Trajectory.read(answer.run)
    asked = Request(run.messages()[:2], run.start.tools, Sampling(max_tokens=64), allow_calls=False)
    reply = await model.generate(asked, MediaStore(answer.run / "media"))
    await model.close()
    assert not reply.message.tool_calls and reply.tokens is not None
    assert model.reading.words.call_open not in reply.tokens.ids
    calling = next(event for event in run.events if isinstance(event, ReplyReceived))
    assert calling.message.tool_calls, "with calls allowed the same request makes one"
