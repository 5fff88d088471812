"""``keyeloop replay``: play a recorded run again."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from keyeloop.runtime.trajectory import Trajectory


def replay(
    run: Annotated[Path, typer.Argument(help="A run's folder, or its name below the folder of runs.")],
    tools: Annotated[bool, typer.Option("--tools", help="Call the tools again, and tell what they give now.")] = False,
    from_step: Annotated[
        int | None, typer.Option("--from", metavar="STEP", help="Ask the model anew from this step on, in a new run.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="With --from: another model, named as for run.")] = None,
    temperature: Annotated[float | None, typer.Option(help="With --from: 0 takes the likeliest token.")] = None,
    seed: Annotated[int | None, typer.Option(help="With --from: seed of the draws.")] = None,
    tool: Annotated[
        list[str] | None, typer.Option(help="The run's own tools, again, as FILE.py:function; may be repeated.")
    ] = None,
    keep: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Keep the replayed run as this folder.")] = None,
    runs: Annotated[Path | None, typer.Option(help="Where runs are kept (default: runs).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object on stdout.")] = False,
) -> int:
    """Play a recorded run again: model and tools from the record, which must come out the same.

    With --tools the tools are called for real and differences are told, pictures by their pixels; exits with 1 where
    there are any. With --from a new run keeps what was before and goes on otherwise.
    """
    from keyeloop.agent.cli.show import read_run
    from keyeloop.runtime.config import load_config
    from keyeloop.runtime.errors import InputError

    past = read_run(run, load_config({"runs": runs}).runs)
    if from_step is not None:
        if tools or keep is not None:
            raise InputError("--from begins a new run, which is kept: leave --tools and --keep out")
        return _fork(past, from_step, model, temperature, seed, tool or [], runs, as_json)
    if model is not None or temperature is not None or seed is not None:
        raise InputError("--model, --temperature and --seed are for --from STEP: a replay asks no model")
    into = keep or Path(tempfile.mkdtemp(prefix="keyeloop-replay-")) / past.folder.absolute().name
    try:
        return _replay(past, into, tools, tool or [], as_json)
    finally:
        if keep is None:
            shutil.rmtree(into.parent, ignore_errors=True)


def _replay(past: Trajectory, into: Path, with_tools: bool, own: list[str], as_json: bool) -> int:
    from keyeloop.agent.approval import TerminalApproval
    from keyeloop.agent.cli.diff import comparison_record, print_comparison
    from keyeloop.agent.cli.recorded import tools_of
    from keyeloop.agent.comparing import compare
    from keyeloop.agent.replaying.replay import replay as play
    from keyeloop.runtime.config import load_config
    from keyeloop.runtime.trajectory import Trajectory

    tools = tools_of(past, own, [], TerminalApproval(), load_config()) if with_tools else None
    done = asyncio.run(play(past.folder, into, tools))
    found = compare(past, Trajectory.read(done.folder))
    if as_json:
        told = {**comparison_record(found), "events": done.events, "cut_off": done.cut_off}
        print(json.dumps(told, ensure_ascii=False))
    elif with_tools:
        print_comparison(found, "its tools, called again")
    else:
        ending = ", as far as it goes: the run was cut off" if done.cut_off else ""
        print(f"the same {done.events} events, model and tools from the record{ending}")
    return 1 if with_tools and found.differences else 0


def _fork(
    past: Trajectory,
    step: int,
    model: str | None,
    temperature: float | None,
    seed: int | None,
    own: list[str],
    runs: Path | None,
    as_json: bool,
) -> int:
    from rich.console import Console

    from keyeloop.agent.agent import Agent
    from keyeloop.agent.answer import Answer
    from keyeloop.agent.approval import TerminalApproval
    from keyeloop.agent.cli.recorded import recorded_config, tools_of
    from keyeloop.agent.cli.run import told, watch
    from keyeloop.agent.live import LiveView
    from keyeloop.agent.replaying.opening import task_of

    config, asking = recorded_config(past, model, runs), TerminalApproval()
    given = {"temperature": temperature, "seed": seed}
    config = config.model_copy(update={name: value for name, value in given.items() if value is not None})
    agent = Agent(tools=tools_of(past, own, [], asking, config), runs=past.folder.parent, settings=config)
    view = LiveView(Console(stderr=as_json), past.folder.parent)
    asking.pause = view.paused
    end = asyncio.run(watch(agent.stream_fork(past.folder, step), view))
    assert view.run is not None, "what has ended has begun"
    form = task_of(past.exchanges[-1].asked, past.start, past.folder).form
    return told(Answer.from_end(end, view.run, form=form), as_json)
