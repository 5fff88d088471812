"""Replies of a served model: streamed or whole, calls and thinking parsed by the server or left in its text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from keyeloop.agent.agent import Agent
from keyeloop.model_backend.base import Delta, Reply, Request, Sampling
from keyeloop.model_backend.openai_chat.backend import OpenAIChat
from keyeloop.runtime.content import Message, Text, ToolSpec
from keyeloop.runtime.errors import ModelRequestForbidden
from keyeloop.runtime.media import MediaStore
from keyeloop.runtime.prices import Prices
from keyeloop.runtime.trajectory import Trajectory
from keyeloop.testing import forbid_model_requests
from tests.agent.small_tools import add
from tests.model_backend.loopback_server import Play, called, counts, delta, event, loopback, said

ADD = ToolSpec("add", "Add.", {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
QUESTION = Request((Message("system", (Text("Be brief."),)), Message("user", (Text("How many?"),))), (ADD,))
HERMES = 'I look.\n<tool_call>\n{"name": "add", "arguments": {"a": 2}}\n</tool_call>'


async def reply_to(
    play: Play, folder: Path, request: Request = QUESTION, deltas: list[Delta] | None = None
) -> tuple[Reply, dict[str, object]]:
    """The reply made of one answer, and the request that the server got."""
    with loopback([play]) as server:
        model = OpenAIChat(server.address + "#m", context_tokens=4096, pictures="tool", call_form="native")
        reply = await model.generate(request, MediaStore(folder), None if deltas is None else deltas.append)
        return reply, server.received[0].json


async def test_a_streamed_text_with_its_usage(tmp_path: Path) -> None:
    deltas: list[Delta] = []
    play = Play(pieces=(delta(content="for"), delta(content="ty"), delta("stop"), counts(90, 2, 64), event("[DONE]")))
    reply, sent = await reply_to(play, tmp_path, deltas=deltas)
    assert (reply.message.text, reply.finish, reply.message.raw) == ("forty", "stop", "forty")
    assert (reply.usage.input_tokens, reply.usage.cached_tokens, reply.usage.output_tokens) == (90, 64, 2)
    assert deltas == [Delta("text", "for"), Delta("text", "ty")]
    assert reply.first_token_s is not None and 0 < reply.first_token_s < 10
    assert sent["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How many?"},
    ]
    assert (sent["model"], sent["stream"], sent["tool_choice"]) == ("m", True, "auto")
    assert sent["tools"] == [
        {"type": "function", "function": {"name": "add", "description": "Add.", "parameters": ADD.parameters}}
    ]


async def test_calls_that_the_server_parsed(tmp_path: Path) -> None:
    reply, _ = await reply_to(called("add", '{"a": 17}'), tmp_path)
    (made,) = reply.message.tool_calls
    assert (made.name, made.arguments, reply.finish) == ("add", {"a": 17}, "tool_calls")


@pytest.mark.parametrize("thinking", ["", "<think>\nhm\n</think>\n\n", "hm\n</think>\n\n"])
async def test_hermes_calls_and_thinking_left_in_the_text(thinking: str, tmp_path: Path) -> None:
    text = thinking + HERMES
    play = said(*(text[at : at + 7] for at in range(0, len(text), 7)))
    reply, _ = await reply_to(play, tmp_path)
    (made,) = reply.message.tool_calls
    assert (made.name, made.arguments, reply.message.text) == ("add", {"a": 2}, "I look.")
    assert reply.message.reasoning == ("hm" if thinking else "")
    assert reply.finish == "tool_calls"


async def test_a_call_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    native, _ = await reply_to(called("add", '{"a": '), tmp_path)
    hermes, _ = await reply_to(said("<tool_call>\n{nothing}\n</tool_call>"), tmp_path)
    for reply in (native, hermes):
        assert not reply.message.tool_calls
        assert "not JSON" in reply.malformed[0].problem
    assert '{"a":' in native.malformed[0].text


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_thinking_comes_and_goes_back_in_the_servers_own_field(field: str, tmp_path: Path) -> None:
    thought = Play(pieces=(delta(**{field: "let me see"}), delta(content="4"), delta("stop"), event("[DONE]")))
    with loopback([thought, said("5")]) as server:
        model = OpenAIChat(server.address + "#m", context_tokens=4096, pictures="tool", call_form="native")
        deltas: list[Delta] = []
        reply = await model.generate(QUESTION, MediaStore(tmp_path), deltas.append)
        assert (reply.message.reasoning, reply.message.text) == ("let me see", "4")
        assert deltas[0] == Delta("reasoning", "let me see")
        again = Request((*QUESTION.messages, reply.message, Message("user", (Text("Sure?"),))))
        await model.generate(again, MediaStore(tmp_path))
    assert server.received[1].json["messages"][2] == {"role": "assistant", "content": "4", field: "let me see"}
    assert "tools" not in server.received[1].json


async def test_thinking_of_tags_goes_back_in_tags(tmp_path: Path) -> None:
    spoken = Message("assistant", (Text("4"),), reasoning="hm", raw="hm\n</think>\n\n4")
    _, sent = await reply_to(said("5"), tmp_path, Request((*QUESTION.messages, spoken)))
    assert isinstance(sent["messages"], list)
    assert sent["messages"][2] == {"role": "assistant", "content": "<think>\nhm\n</think>\n\n4"}


async def test_a_server_that_does_not_stream(tmp_path: Path) -> None:
    call = {"id": "x", "type": "function", "function": {"name": "add", "arguments": '{"a": 3}'}}
    body = {
        "choices": [{"message": {"role": "assistant", "content": None, "tool_calls": [call]}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 6},
    }
    play = Play(200, {"Content-Type": "application/json"}, (json.dumps(body).encode(),))
    reply, _ = await reply_to(play, tmp_path)
    assert reply.message.tool_calls[0].arguments == {"a": 3}
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.usage.cached_tokens) == (5, 6, 0)


async def test_a_cut_reply_says_so_and_missing_counts_are_estimated(tmp_path: Path) -> None:
    play = Play(pieces=(delta(content="a long answ"), delta("length"), event("[DONE]")))
    reply, _ = await reply_to(play, tmp_path)
    assert (reply.finish, reply.message.text) == ("length", "a long answ")
    assert reply.usage.input_tokens > 0 and reply.usage.output_tokens > 0


async def test_sampling_and_the_last_request(tmp_path: Path) -> None:
    sampling = Sampling(temperature=0.6, top_p=0.95, top_k=20, max_tokens=77, seed=5)
    _, sent = await reply_to(said("4"), tmp_path, Request(QUESTION.messages, (ADD,), sampling, allow_calls=False))
    wanted = {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "max_tokens": 77, "seed": 5, "tool_choice": "none"}
    assert {name: sent[name] for name in wanted} == wanted
    assert sent["tools"]


async def test_a_whole_run_over_http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYELOOP_API_KEY", "sk-secret-1")
    probed = [said("x", prompt=60), said("x", prompt=20), said("x", prompt=76)]
    answers = [*probed, called("add", '{"a": 2, "b": 3}', 40), said("5", prompt=60)]
    with loopback(answers, max_model_len=9000) as server:
        agent = Agent(server.address, [add], runs=tmp_path, prices=Prices(1.0, 1.0))
        answer = await agent.run("2 + 3?")
        await agent.close()
    assert (str(answer), answer.status) == ("5", "answered")
    assert answer.usage.input_tokens == 100
    assert answer.usage.cost == pytest.approx(109e-6)
    last = server.received[-1]
    assert last.headers["authorization"] == "Bearer sk-secret-1"
    assert [message["role"] for message in last.json["messages"]] == ["system", "user", "assistant", "tool"]
    assert last.json["messages"][2]["tool_calls"][0]["id"] == last.json["messages"][3]["tool_call_id"] == "call-1"
    assert last.json["messages"][3]["content"] == "5"
    run = Trajectory.read(answer.run)
    assert (run.start.model, run.start.config["context_tokens"]) == (f"{server.address}#m", 9000)
    assert b"sk-secret" not in (answer.run / "journal.jsonl").read_bytes()


async def test_no_server_is_asked_where_tests_forbid_it(tmp_path: Path) -> None:
    with loopback([]) as server, forbid_model_requests():
        with pytest.raises(ModelRequestForbidden):
            OpenAIChat(server.address).capabilities()
        with pytest.raises(ModelRequestForbidden):
            await OpenAIChat(server.address + "#m").generate(QUESTION, MediaStore(tmp_path))
    assert not server.received
