"""``keyeloop batch``: many questions from a file, their results into another."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from keyeloop.agent.agent import Agent
    from keyeloop.agent.batch.result_file import ResultFile
    from keyeloop.agent.batch.task_file import FileTask
    from keyeloop.agent.batch.view import BatchView
    from keyeloop.agent.task import Task
    from keyeloop.model_backend.base import ModelBackend
    from keyeloop.runtime.config import Config
    from keyeloop.tools.base import Tool


def batch(
    tasks: Annotated[
        Path,
        typer.Argument(
            metavar="TASKS.jsonl",
            help="One JSON object a line: task (or question), and if need be id, video, videos, images, documents, "
            "watch, answer_schema. Paths are relative to this file.",
            show_default=False,
        ),
    ],
    model: Annotated[
        str | None, typer.Option(help="keye-tiny (default), a folder, http://host:port/v1#name, or replay:RUN.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="How many tasks run at a time.")] = 8,
    out: Annotated[
        Path | None, typer.Option(help="Where results go, one line a task (default: TASKS.results.jsonl).")
    ] = None,
    runs: Annotated[Path | None, typer.Option(help="Where runs are kept (default: runs).")] = None,
    max_turns: Annotated[int | None, typer.Option(help="Requests to the model, of each task.")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="Seconds of each task, waiting included.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest reply, in tokens.")] = None,
    tool: Annotated[
        list[str] | None, typer.Option(help="A tool of your own, as FILE.py:function; may be repeated.")
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Do tasks again that failed before.")] = False,
) -> int:
    """Run many tasks. What has a result is not run again, so that the same command goes on after any interruption.

    Exits with 1 when a task of the file has failed, with 2 when a line of it cannot be used (nothing is run then).
    """
    from rich.console import Console

    from keyeloop.agent.batch.result_file import FAILED, ResultFile
    from keyeloop.agent.batch.task_file import BadLines, read_tasks
    from keyeloop.agent.batch.view import BatchView, print_totals
    from keyeloop.agent.models import check_model
    from keyeloop.agent.user_tools import load_tools
    from keyeloop.runtime.config import load_config

    config = load_config(
        {"model": model, "runs": runs, "turns": max_turns, "seconds": max_seconds, "max_tokens": max_tokens}
    )
    try:
        listed = read_tasks(tasks)
    except BadLines as bad:
        print("\n".join(bad.problems), file=sys.stderr)
        raise
    check_model(config.model)
    own = load_tools(tool or [])
    console = Console()
    with ResultFile(out or tasks.with_suffix(".results.jsonl"), FAILED if retry_failed else ()) as results:
        left = _left(listed, results)
        view = BatchView(console, len(listed), len(listed) - len(left))
        if len(left) < len(listed):
            console.print(f"{len(listed) - len(left)} of {len(listed)} have results in {results.path}", soft_wrap=True)
        if left:
            try:
                asyncio.run(_play(left, results, view, config, own, concurrency))
            except KeyboardInterrupt:
                done = sum(each.task.id in results.records for each in listed)
                kept = f"interrupted; {done} of {len(listed)} results are kept in {results.path}"
                print(f"{kept}: the same command goes on with the rest", file=sys.stderr)
                raise
        records = [results.records[each.task.id] for each in listed]
        print_totals(console, records)
        console.print(f"results: {results.path}", soft_wrap=True)
    return 1 if any(record["status"] in FAILED for record in records) else 0


def _left(listed: Sequence[FileTask], results: ResultFile) -> list[FileTask]:
    """Tasks without a result. InputError where a result is of another task of the same name."""
    from keyeloop.runtime.errors import InputError

    changed = [
        each.task.id
        for each in listed
        if each.task.id in results.records and results.records[each.task.id].get("asked", each.asked) != each.asked
    ]
    if changed:
        shown = ", ".join(repr(name) for name in changed[:5]) + (" and others" if len(changed) > 5 else "")
        raise InputError(
            f"{results.path} has results of {shown} for other questions or inputs than now: give changed tasks "
            "another id, or name another --out"
        )
    return [each for each in listed if each.task.id not in results.records]


async def _play(
    left: Sequence[FileTask],
    results: ResultFile,
    view: BatchView,
    config: Config,
    own: Sequence[Tool],
    concurrency: int,
) -> None:
    """Run what is left; every outcome is written down before it is shown."""
    from concurrent.futures import ThreadPoolExecutor
    from contextlib import aclosing
    from dataclasses import replace

    from keyeloop.agent.batch.many import stream_many
    from keyeloop.agent.models import configured_model, load_model

    workers = ThreadPoolExecutor(max(8, 2 * concurrency), "batch")  # tools of many runs block threads at once
    asyncio.get_running_loop().set_default_executor(workers)
    backend = await asyncio.to_thread(load_model, configured_model(config))
    try:
        tasks = [replace(each.task, documents=each.task.documents or config.documents) for each in left]
        with view:
            async with aclosing(stream_many(agent_chooser(backend, config, own), tasks, concurrency)) as outcomes:
                async for outcome in outcomes:
                    record = {**outcome.to_json(), "asked": left[outcome.index].asked}
                    results.append(record)
                    view.on(record)
    finally:
        await backend.close()


def agent_chooser(backend: ModelBackend, config: Config, own: Sequence[Tool] | None) -> Callable[[Task], Agent]:
    """An agent for each task: the built-in tools follow its inputs, as in a run of its own; none where own is None."""
    from keyeloop.agent.agent import Agent
    from keyeloop.agent.builtin import builtin_tools

    def choose(task: Task) -> Agent:
        if not own:
            return plain
        kinds = [*(["video"] if task.video or task.videos else []), *(["image"] if task.images else [])]
        documents = None if task.documents is None else Path(task.documents)
        tools = [*builtin_tools(kinds, documents, config), *own]
        return Agent(backend, tools, settings=config)

    plain = Agent(backend, [] if own is None else None, settings=config)
    return choose
