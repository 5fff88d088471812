"""``keyeloop eval``: questions with known answers, asked, scored and reported; or two such reports compared."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from keyeloop.agent.evaluation.question import Question

EVALS = Path("evals")
"""Where evaluations go that are told no other place."""


def evaluate(
    questions: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="QUESTIONS...",
            help="A .json list or one JSON object a line, as demo-video writes: question, answer, and if need be "
            "video, kind, family, options, tolerance, start_s, end_s, id.",
            show_default=False,
        ),
    ] = None,
    videos: Annotated[
        Path | None, typer.Option(help="Folder that videos are named in (default: beside the questions), or one video.")
    ] = None,
    no_tools: Annotated[
        bool, typer.Option("--no-tools", help="Ask with frames in the first message instead of tools.")
    ] = False,
    epochs: Annotated[int, typer.Option(min=1, help="How often every question is asked.")] = 1,
    model: Annotated[
        str | None, typer.Option(help="keye-tiny (default), a folder, http://host:port/v1#name, or replay:RUN.")
    ] = None,
    judge: Annotated[str | None, typer.Option(help="The model that reads answers of kind judged.")] = None,
    judge_prices: Annotated[
        str | None, typer.Option(metavar="IN,OUT", help="The judge's prices of a million tokens.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="How many questions are asked at a time.")] = 8,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many questions, the first ones.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Above 0, epochs differ.")] = None,
    max_turns: Annotated[int | None, typer.Option(help="Requests to the model, of each run.")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="Seconds of each run, waiting included.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest reply, in tokens.")] = None,
    tool: Annotated[
        list[str] | None, typer.Option(help="A tool of your own, as FILE.py:function; may be repeated.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the evaluation (default: one below evals).")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Ask again where a run failed before.")] = False,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(metavar="A B", help="Compare two evaluations instead.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object on stdout.")] = False,
) -> int:
    """Ask questions with known answers and report how many answers are right. The same command goes on after a cut.

    Exits with 1 when a run failed or a verdict is missing, with 2 when a question cannot be used (nothing is asked).
    """
    from rich.console import Console

    from keyeloop.agent.cli.evaluation import Wish
    from keyeloop.runtime.config import load_config
    from keyeloop.runtime.errors import InputError

    console = Console(stderr=as_json)
    if compare is not None:
        if questions:
            raise InputError("--compare reads two folders of evaluations and asks nothing: leave the questions out")
        return _compare(compare, console, as_json)
    if not questions:
        raise InputError("no questions: name a file of them, or two evaluations to --compare")
    wish = Wish(
        questions=_read(questions, videos)[:limit],
        out=out or EVALS / _name(questions, model, no_tools),
        config=load_config(
            {
                "model": model,
                "temperature": temperature,
                "turns": max_turns,
                "seconds": max_seconds,
                "max_tokens": max_tokens,
            }
        ),
        judge=judge or "",
        judge_prices=judge_prices,
        tools=tool or [],
        no_tools=no_tools,
        epochs=epochs,
        concurrency=concurrency,
        retry_failed=retry_failed,
    )
    made = wish.grant(console)
    if as_json:
        print(json.dumps({"folder": str(made.folder), **made.report}, ensure_ascii=False))
    return 1 if {"failed", "interrupted", "unjudged"} & made.report["statuses"].keys() else 0


def _compare(folders: tuple[Path, Path], console: Console, as_json: bool) -> int:
    from keyeloop.agent.evaluation.comparison import compare
    from keyeloop.agent.evaluation.tables import print_comparison

    made = compare(*folders)
    print_comparison(console, made, *folders)
    if as_json:
        print(json.dumps(made.to_json(), ensure_ascii=False))
    return 0


def _read(questions: Sequence[Path], videos: Path | None) -> list[Question]:
    from keyeloop.agent.batch.task_file import BadLines
    from keyeloop.agent.evaluation.question_file import read_questions

    try:
        return read_questions(questions, videos)
    except BadLines as bad:
        print("\n".join(bad.problems), file=sys.stderr)
        raise


def _name(questions: Sequence[Path], model: str | None, no_tools: bool) -> str:
    """A folder's name that tells questions and models apart."""
    from keyeloop.runtime.config import load_config

    asked = load_config({"model": model}).model.split("://")[-1]
    about = questions[0].stem + (f"-and-{len(questions) - 1}" if len(questions) > 1 else "")
    parts = [about, re.sub(r"[^A-Za-z0-9.]+", "-", asked).strip("-.")[-60:], "no-tools" if no_tools else ""]
    return "-".join(filter(None, parts))
