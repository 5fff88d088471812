"""What the commands about a recorded run share: its model and its tools, found again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keyeloop.agent.approval import TerminalApproval
    from keyeloop.runtime.config import Config
    from keyeloop.runtime.trajectory import Trajectory
    from keyeloop.tools.toolset import Toolset


def recorded_config(run: Trajectory, model: str | None, runs: Path | None) -> Config:
    """Settings with the run's own model, unless another is named."""
    from keyeloop.agent.models import recorded_model
    from keyeloop.runtime.config import load_config

    return load_config({"model": model or recorded_model(run), "runs": runs})


def tools_of(run: Trajectory, own: list[str], approve: list[str], asking: TerminalApproval, config: Config) -> Toolset:
    """Everything that the run may have had: the built-in tools, and those that are named as FILE.py:function."""
    from keyeloop.agent.approval import guarded
    from keyeloop.agent.builtin import builtin_tools
    from keyeloop.agent.user_tools import load_tools
    from keyeloop.tools.toolset import Toolset

    named = {made.spec.name: made for made in load_tools(own)}
    documents = run.start.config.get("documents")
    kinds = {source.kind for source in run.start.inputs}
    builtin = builtin_tools(kinds, None if documents is None else Path(documents), config)
    tools = Toolset([*(one for one in builtin if one.spec.name not in named), *named.values()])
    return guarded(tools, approve, asking)
