"""``keyeloop run --resume``: go on with a run that was cut off."""

from __future__ import annotations

import asyncio
from pathlib import Path


def resume(run: Path, model: str | None, tool: list[str], approve: list[str], runs: Path | None, as_json: bool) -> int:
    """Play a run to the end that it would have come to; exits as ``run`` does."""
    from rich.console import Console

    from keyeloop.agent.agent import Agent
    from keyeloop.agent.answer import Answer
    from keyeloop.agent.approval import TerminalApproval
    from keyeloop.agent.cli.recorded import recorded_config, tools_of
    from keyeloop.agent.cli.run import told, watch
    from keyeloop.agent.cli.show import read_run
    from keyeloop.agent.live import LiveView
    from keyeloop.agent.replaying.opening import require_resumable, task_of
    from keyeloop.runtime.config import load_config

    past = read_run(run, load_config({"runs": runs}).runs)
    require_resumable(past)
    config, asking = recorded_config(past, model, runs), TerminalApproval()
    agent = Agent(tools=tools_of(past, tool, approve, asking, config), runs=past.folder.parent, settings=config)
    view = LiveView(Console(stderr=as_json), past.folder.parent, past.folder)
    asking.pause = view.paused
    end = asyncio.run(watch(agent.stream_resume(past.folder), view))
    form = task_of(past.exchanges[-1].asked, past.start, past.folder).form
    return told(Answer.from_end(end, past.folder, form=form), as_json)
