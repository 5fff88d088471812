"""``keyeloop demo``: the embedded model answers a question about the bundled video."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer

VIDEO = "board.mp4"
"""Beside its questions and answers, ``board.json``, in ``tools/demo_video/``."""


def demo(
    question: Annotated[str | None, typer.Argument(help="A question of your own about the video.")] = None,
    runs: Annotated[Path | None, typer.Option(help="Where runs are kept (default: runs).")] = None,
) -> int:
    """Watch keye-tiny answer a question about the bundled board video; exit 1 when it answers wrongly."""
    from rich.console import Console

    from keyeloop.agent.agent import Agent
    from keyeloop.agent.answer import Answer
    from keyeloop.agent.cli.run import watch
    from keyeloop.agent.live import LiveView
    from keyeloop.runtime.config import load_config

    folder = load_config({"runs": runs}).runs
    video, asked, expected = bundled_question()
    if question is not None:
        asked, expected = question, ""
    print(f"keyeloop run {json.dumps(asked, ensure_ascii=False)} --video {video}\n")
    view = LiveView(Console(), folder)
    end = asyncio.run(watch(Agent("keye-tiny", runs=folder).stream(asked, video=video), view))
    if not expected or view.run is None:
        return 0
    right = str(Answer.from_end(end, view.run)).strip() == expected
    print(f"the video's maker says {expected}: {'right' if right else 'wrong'}")
    return 0 if right else 1


def bundled_question() -> tuple[Path, str, str]:
    """The bundled video, a question about it and the true answer. InputError when the files are not there."""
    import keyeloop.tools.demo_video as home
    from keyeloop.runtime.errors import InputError

    video = Path(home.__file__).parent / VIDEO
    try:
        questions = json.loads(video.with_suffix(".json").read_text(encoding="utf-8"))
    except OSError:
        raise InputError(f"the bundled video {video} is missing: install keyeloop again, with its data files") from None
    chosen = next(question for question in questions if question["family"] == "read")
    return video, chosen["question"], chosen["answer"]
