"""Servers that refuse tools or lose them without a word: calls travel in the text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from keyeloop.agent.agent import Agent
from tests.agent.small_tools import add, look
from tests.model_backend.loopback_server import Play, Received, failed, loopback, said


def hermes(name: str, **arguments: object) -> str:
    body = json.dumps({"name": name, "arguments": arguments})
    return f"<tool_call>\n{body}\n</tool_call>"


def toolless(refuses: bool, *replies: str) -> object:
    """A server that refuses tools, or never counts them; it sees pictures of 16 tokens in user turns."""
    rest = iter(replies)

    def play(request: Received) -> Play:
        if refuses and "tools" in request.json:
            return failed(400, '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set')
        pictured = "image_url" in json.dumps(request.json)
        return said("x" if request.json["max_tokens"] == 1 else next(rest), prompt=30 + 16 * pictured)

    return play


@pytest.mark.parametrize("refuses", [True, False])
async def test_a_run_calls_tools_in_words(refuses: bool, tmp_path: Path) -> None:
    play = toolless(refuses, "Adding.\n" + hermes("add", a=2, b=3), "5")
    with loopback(play) as server:  # type: ignore[arg-type]
        answer = await Agent(server.address, [add], runs=tmp_path).run("2 + 3?")
    assert (str(answer), answer.status) == ("5", "answered")
    sent = server.received[-1].json
    system, _, spoken, result = sent["messages"]
    assert "tools" not in sent and "tool_choice" not in sent
    assert '<tools>\n{"type": "function", "function": {"name": "add"' in system["content"]
    assert spoken == {"role": "assistant", "content": "Adding.\n" + hermes("add", a=2, b=3)}
    assert result == {"role": "user", "content": "<tool_response>\n5\n</tool_response>"}


async def test_pictures_stand_inside_the_result(tmp_path: Path) -> None:
    with loopback(toolless(True, hermes("look", at_s=3), "grey [f1]")) as server:  # type: ignore[arg-type]
        answer = await Agent(server.address, [look], runs=tmp_path).run("What is there?")
    assert str(answer) == "grey"
    content = server.received[-1].json["messages"][-1]["content"]
    assert [item.get("text", "*") for item in content] == [
        "<tool_response>\n", "f1 at 3.0 s", "*", "\n</tool_response>",
    ]  # fmt: skip
