"""The live view: the same run on a terminal and on a plain stream, and the words that both use."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from keyeloop.agent.agent import Agent
from keyeloop.agent.live import LiveView
from keyeloop.agent.wording import call_words, citation_words, clean, clipped, parts_words, span_words, strip
from keyeloop.model_backend.scripted import Script, ScriptedBackend, calls
from keyeloop.runtime.budget import Limits
from keyeloop.runtime.content import Image, MediaRef, Text, ToolCall, Video
from keyeloop.runtime.evidence import Citation, Region
from keyeloop.runtime.trajectory import Span
from tests.agent.small_tools import crash, look

PICTURE = Image(MediaRef("0" * 64, "image/jpeg", 1, 28, 28))
SCRIPT: list[Script] = [
    calls(("look", {"at_s": 3}), ("crash", {"denominator": 0}), reasoning="I wonder\nwhat [bold]it[/bold] is."),
    "it is 3 [f1]",
]


async def shown(runs: Path, *, terminal: bool) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100, color_system=None, legacy_windows=False)
    agent = Agent(ScriptedBackend(SCRIPT), [look, crash], runs=runs, limits=Limits(turns=1), on_tool_crash="continue")
    with LiveView(console, runs) as view:
        async for event in agent.stream("what is it?"):
            view.on(event)
    assert view.run is not None and view.run.parent == runs
    return out.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
async def test_every_step_is_shown(tmp_path: Path, terminal: bool) -> None:
    text = await shown(tmp_path, terminal=terminal)
    for line in (
        "   … I wonder what [bold]it[/bold] is.",
        "   → look(at_s=3)",
        "   ← f1 at 3.0 s + 1 picture",
        "   ← Error: crash broke down (ZeroDivisionError",
        "   ! the limit of turns is reached (1)",
        "it is 3 [f1]",
        "  [f1] scene at 0:00:03.000",
        "budget (the limit of turns is reached (1)): 2 steps",
    ):
        assert line in text
    assert ("\x1b[" in text) == terminal
    if terminal:
        assert "step 1: asking with" in text and "step 1: look" in text


def test_words_are_safe_and_short() -> None:
    assert clean("a\x1b]0;title\x07\tb\n") == "a\\x1b]0;title\\x07\tb\n"
    assert clipped("one\n  two " + "x" * 500, 20) == "one two xxxxxxxxxxx…"
    assert call_words(ToolCall("c", "f", {"a": "é", "b": [1.5, None]})) == 'f(a="é", b=[1.5, null])'
    assert parts_words([Text("f1"), Video((PICTURE, PICTURE)), PICTURE]) == "f1 + 3 pictures"


def test_a_sparse_span_says_how_sparse_it_is() -> None:
    assert span_words(Span((82.0, 83.0, 84.0), 4)) == "0:01:22.000 to 0:01:24.000 (4 views)"
    assert span_words(Span((0.0, 7.0, 3600.0), 3)) == "0:00:00.000 to 1:00:00.000 (3 views, up to 3593.0 s apart)"
    assert span_words(Span((5.0,), 1)) == "0:00:05.000 (1 view)"


def test_the_strip_marks_what_was_looked_at() -> None:
    dense = tuple(50 + tenth for tenth in range(10))
    assert strip([Span((0,), 1), Span((*dense, 59.9), 11), Span((60,), 1)], 60.0, 12) == "█─────────██"
    assert strip([Span((-1, 99), 1)], 60.0, 4) == "█──█", "nothing between two frames far apart was looked at"
    assert strip([Span((10, 10.8), 2)], 12.0, 60) == "─" * 50 + "█████" + "─" * 5
    assert strip([], 60.0, 4) == "────"


def test_a_citation_of_nothing_says_so() -> None:
    citation = Citation("", "", None, Region(1, 2, 3, 4), "f9", False, "[f9]")
    assert citation_words(citation) == (
        "[f9] nothing that was shown, box 1,2 to 3,4 px (unseen: the run never looked there)"
    )
