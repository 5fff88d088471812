"""Runs for the viewer's tests: a real agent, real video tools and the bundled video; only the model is a script."""

from __future__ import annotations

from pathlib import Path

from keyeloop.agent.agent import Agent
from keyeloop.agent.cli.demo import bundled_question
from keyeloop.model_backend.scripted import Script, ScriptedBackend, call, calls
from keyeloop.tools.decorate import tool
from keyeloop.tools.video.clip import ClipVideo
from keyeloop.tools.video.zoom import Zoom

VIDEO = bundled_question()[0]
EVIL = "<script>window.hit=1</script><img src=x onerror=window.hit=2>\"'><svg onload=window.hit=3>{{7*7}}</textarea>"
"""A text that would do something on a page that believed it."""
LOOKING: list[Script] = [
    calls(
        ("clip_video", {"video": "video-1", "start_s": 2, "end_s": 8, "max_frames": 3}),
        ("note", {"text": "what is\nwritten"}),
        reasoning="I look at the beginning.",
    ),
    call("zoom", view="f2", box=[250, 250, 750, 500]),
    "It is written there [z1 100,100,500,500] and [f3].",
]


@tool
def note(text: str) -> str:
    """Write something down."""
    return f"noted: {text}"


@tool
def repeat(text: str) -> str:
    """Say it again."""
    return text


def record(
    runs: Path,
    question: str = "What is written on the board?",
    script: list[Script] | None = None,
    video: Path | None = VIDEO,
) -> Path:
    """Make one run and return its folder."""
    agent = Agent(
        ScriptedBackend(LOOKING if script is None else script), [ClipVideo(), Zoom(), note, repeat], runs=runs
    )
    return Path(agent.run_sync(question, video=video).run)


def record_evil(runs: Path) -> Path:
    """A run whose every text is an attack on the page that shows it."""
    script: list[Script] = [
        calls(("repeat", {"text": EVIL}), (EVIL, {EVIL: EVIL}), reasoning=EVIL),
        f"{EVIL} [f1]",
    ]
    return record(runs, f"Who is {EVIL}?", script, None)
