"""``keyeloop run``: ask a question, watch the run, read the answer."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from keyeloop.agent.agent import StreamEvent
    from keyeloop.agent.answer import Answer
    from keyeloop.agent.live import LiveView
    from keyeloop.runtime.config import Config
    from keyeloop.runtime.events import RunEnded
    from keyeloop.tools.toolset import Toolset


def run(
    question: Annotated[str | None, typer.Argument(help="What you want to know.", show_default=False)] = None,
    video: Annotated[list[Path] | None, typer.Option(help="A video to look into; may be repeated.")] = None,
    image: Annotated[list[Path] | None, typer.Option(help="A picture to look at; may be repeated.")] = None,
    documents: Annotated[Path | None, typer.Option(help="A folder of documents for web_search.")] = None,
    search: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Who web_search asks: searxng, brave, tavily, serper, exa, ddgs, documents; a,b the next on failure, "
            "a+b all at once.",
        ),
    ] = None,
    pages: Annotated[
        bool | None, typer.Option("--pages/--no-pages", help="Offer open_page (default: where --search looks outside).")
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST[:PORT]", help="Pages of this private host may be opened; may be repeated."),
    ] = None,
    watched: Annotated[
        str, typer.Option("--watch", help="Frames of the videos in the first message: none, overview (a few) or whole.")
    ] = "none",
    plan: Annotated[
        bool, typer.Option("--plan", help="Only tell what the first request would hold; nothing is decoded or sent.")
    ] = False,
    model: Annotated[
        str | None, typer.Option(help="keye-tiny (default), a folder, http://host:port/v1#name, or replay:RUN.")
    ] = None,
    answer_schema: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="A JSON schema that the answer has to fit.")
    ] = None,
    tool: Annotated[
        list[str] | None,
        typer.Option(
            help="Your own tool, as FILE.py:function, a server's as mcp:COMMAND_OR_URL, or compare, contact_sheet, "
            "transcript, read_text, listen:MODEL; repeatable."
        ),
    ] = None,
    approve: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN=DECISION", help="Which calls to allow, ask about or deny; may be repeated."),
    ] = None,
    runs: Annotated[Path | None, typer.Option(help="Where runs are kept (default: runs).")] = None,
    max_turns: Annotated[int | None, typer.Option(help="Requests to the model.")] = None,
    max_calls: Annotated[int | None, typer.Option(help="Tool calls.")] = None,
    max_total_tokens: Annotated[int | None, typer.Option(help="Tokens of all requests together.")] = None,
    max_visual_tokens: Annotated[int | None, typer.Option(help="Picture tokens.")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="Seconds for the whole run.")] = None,
    max_cost: Annotated[float | None, typer.Option(help="Cost of the whole run; needs prices in the settings.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest reply, in tokens.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 takes the likeliest token.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="At a temperature above 0, the likeliest tokens of this share together.")
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(help="At a temperature above 0, so many likeliest tokens; 0 all.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the draws at a temperature above 0.")] = None,
    resume_run: Annotated[
        Path | None,
        typer.Option("--resume", metavar="RUN", help="Go on with a run that was cut off, where it was; no question."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object on stdout.")] = False,
) -> int:
    """Ask a question about videos and pictures, and watch how it is answered.

    Exits with 1 when no answer came that fits --answer-schema, or the run failed; with 2 for wrong input.
    """
    from rich.console import Console

    from keyeloop.agent.agent import Agent
    from keyeloop.agent.answer import Answer
    from keyeloop.agent.answer_form import AnswerForm
    from keyeloop.agent.answer_schema import read_schema
    from keyeloop.agent.approval import TerminalApproval, guarded
    from keyeloop.agent.live import LiveView
    from keyeloop.agent.task import Task
    from keyeloop.agent.watching import check_watch
    from keyeloop.runtime.config import load_config
    from keyeloop.runtime.errors import InputError

    if resume_run is not None:
        from keyeloop.agent.cli.resume import resume

        if question is not None or video or image:
            raise InputError("--resume takes no question and no inputs: the run has them; keyeloop ask asks on")
        return resume(resume_run, model, tool or [], approve or [], runs, as_json)
    if question is None:
        raise InputError("the question is missing: say what you want to know, as keyeloop run 'What is shown?'")
    config = load_config(
        {
            "model": model,
            "runs": runs,
            "documents": documents,
            "search": search,
            "pages": pages,
            "allow_hosts": ",".join(allow_host) if allow_host else None,
            "turns": max_turns,
            "tool_calls": max_calls,
            "total_tokens": max_total_tokens,
            "visual_tokens": max_visual_tokens,
            "seconds": max_seconds,
            "cost": max_cost,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "top_k": top_k,
            "seed": seed,
        }
    )
    asking = TerminalApproval()
    tools = _tools(tool or [], bool(video), bool(image), config, always=bool(approve))
    agent = Agent(tools=tools and guarded(tools, approve or (), asking), settings=config)
    form = None if answer_schema is None else AnswerForm(read_schema(answer_schema))
    asked = Task(question, videos=video or (), images=image or (), watch=check_watch(watched), answer=form)
    if plan:
        planned = asyncio.run(agent.plan(asked))
        print(json.dumps(planned.to_json(), ensure_ascii=False) if as_json else planned)
        return 0
    view = LiveView(Console(stderr=as_json), config.runs)
    asking.pause = view.paused
    end = asyncio.run(watch(agent.stream(asked), view))
    assert view.run is not None, "what has ended has begun"
    return told(Answer.from_end(end, view.run, form=form), as_json)


def told(answer: Answer, as_json: bool) -> int:
    """Print an answer as JSON where that was asked for; the exit code: 1 where it is not what it had to be."""
    if as_json:
        print(json.dumps(answer.to_json(), ensure_ascii=False))
    return 0 if answer.fits else 1


async def watch(stream: AsyncGenerator[StreamEvent, None], view: LiveView) -> RunEnded:
    """Show a stream to its end, and return that; on Ctrl-C say how to go on."""
    from keyeloop.agent.playing import how_to_go_on
    from keyeloop.runtime.events import RunEnded

    end: Any = None
    try:
        with view:
            async with aclosing(stream):
                async for event in stream:
                    view.on(event)
                    end = event
    except asyncio.CancelledError:
        if view.run is not None:
            print(how_to_go_on(view.run), file=sys.stderr)
        raise
    assert isinstance(end, RunEnded), "a stream that does not raise ends with run_end"
    return end


def _tools(named: list[str], videos: bool, images: bool, config: Config, *, always: bool) -> Toolset | None:
    """The built-in tools and those that were named; None, unless ``always``, leaves the choice to the agent."""
    if not named and not always:
        return None
    from keyeloop.agent.builtin import builtin_tools
    from keyeloop.agent.user_tools import load_tools

    kinds = [*(["video"] if videos else []), *(["image"] if images else [])]
    return builtin_tools(kinds, config.documents, config) + load_tools(named)
