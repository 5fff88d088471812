"""``keyeloop ask``: another question in the conversation of a recorded run."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer


def ask(
    run: Annotated[
        Path, typer.Argument(help="A run's folder, or its name below the folder of runs.", show_default=False)
    ],
    question: Annotated[str, typer.Argument(help="What else you want to know.", show_default=False)],
    model: Annotated[
        str | None, typer.Option(help="Another model than the recorded one, named as for run.", show_default=False)
    ] = None,
    answer_schema: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="A JSON schema that this answer has to fit.")
    ] = None,
    tool: Annotated[
        list[str] | None, typer.Option(help="The run's own tools, again, as FILE.py:function; may be repeated.")
    ] = None,
    approve: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN=DECISION", help="Which calls to allow, ask about or deny; may be repeated."),
    ] = None,
    search: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Who web_search asks, named as for run, where the run had that.")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="HOST[:PORT]", help="Pages of this private host may be opened, again.")
    ] = None,
    runs: Annotated[Path | None, typer.Option(help="Where runs are kept (default: runs).")] = None,
    max_turns: Annotated[int | None, typer.Option(help="Requests to the model for this question.")] = None,
    max_calls: Annotated[int | None, typer.Option(help="Tool calls.")] = None,
    max_total_tokens: Annotated[int | None, typer.Option(help="Tokens of all its requests together.")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="Seconds for this question.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest reply, in tokens.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object on stdout.")] = False,
) -> int:
    """Ask on: the run goes on where it ended, with all that was seen and said; nothing is decoded again."""
    from rich.console import Console

    from keyeloop.agent.agent import Agent
    from keyeloop.agent.answer import Answer
    from keyeloop.agent.answer_form import AnswerForm
    from keyeloop.agent.answer_schema import read_schema
    from keyeloop.agent.approval import TerminalApproval, guarded
    from keyeloop.agent.builtin import builtin_tools
    from keyeloop.agent.cli.run import told, watch
    from keyeloop.agent.cli.show import read_run
    from keyeloop.agent.live import LiveView
    from keyeloop.agent.models import recorded_model
    from keyeloop.agent.user_tools import load_tools
    from keyeloop.runtime.config import load_config
    from keyeloop.tools.toolset import Toolset

    past = read_run(run, load_config({"runs": runs}).runs)
    config = load_config(
        {
            "model": model or recorded_model(past),
            "runs": runs,
            "search": search,
            "allow_hosts": ",".join(allow_host) if allow_host else None,
            "turns": max_turns,
            "tool_calls": max_calls,
            "total_tokens": max_total_tokens,
            "seconds": max_seconds,
            "max_tokens": max_tokens,
        }
    )
    own = {made.spec.name: made for made in load_tools(tool or [])}
    documents = past.start.config.get("documents")
    kinds = {source.kind for source in past.start.inputs}
    builtin = builtin_tools(kinds, None if documents is None else Path(documents), config)
    asking = TerminalApproval()
    tools = Toolset([*(one for one in builtin if one.spec.name not in own), *own.values()])
    agent = Agent(
        tools=guarded(tools, approve or (), asking),
        runs=past.folder.parent,
        settings=config,
    )
    view = LiveView(Console(stderr=as_json), past.folder.parent, past.folder)
    asking.pause = view.paused
    form = None if answer_schema is None else AnswerForm(read_schema(answer_schema))
    end = asyncio.run(watch(agent.stream_ask(past.folder, question, answer=form), view))
    return told(Answer.from_end(end, past.folder, form=form), as_json)
