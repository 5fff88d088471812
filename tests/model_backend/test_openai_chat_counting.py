"""Counts before the server has counted anything, held to what llama.cpp counted."""

from __future__ import annotations

import pytest

from keyeloop.agent.builtin import builtin_tools
from keyeloop.agent.prompt import system_text
from keyeloop.model_backend.base import Request
from keyeloop.model_backend.openai_chat.counting import TokenEstimate
from keyeloop.model_backend.scripted import PatchCost
from keyeloop.runtime.content import Message, Text


@pytest.mark.parametrize(
    ("kinds", "task", "told"),
    [
        (["video"], "video-1: 60.0 s, 1280x720\n\nWhat number is on the board at 20 s?", 559),
        ([], "Use the python tool to print 383 + 821.", 272),
    ],
)
def test_a_first_count_is_near_what_a_server_counted(kinds: list[str], task: str, told: int) -> None:
    turns = (Message("system", (Text(system_text()),)), Message("user", (Text(task),)))
    request = Request(turns, tools=builtin_tools(kinds).specs)
    assert TokenEstimate(PatchCost()).count(request).input_tokens == pytest.approx(told, rel=0.05)


def test_digits_count_one_token_each() -> None:
    def count(text: str) -> int:
        return TokenEstimate(PatchCost()).count(Request((Message("user", (Text(text),)),))).input_tokens

    assert count("7" * 350) - count("x" * 350) == 350 - 100
