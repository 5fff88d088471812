"""keyeloop: an agent that watches. ``from keyeloop import Agent, tool`` is all that most scripts need.

Names are imported when they are first used, so that ``import keyeloop`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keyeloop.agent.agent import Agent as Agent
    from keyeloop.agent.answer import Answer as Answer
    from keyeloop.agent.batch.many import TaskOutcome as TaskOutcome
    from keyeloop.agent.evaluation.evaluate import evaluate as evaluate
    from keyeloop.agent.task import Task as Task
    from keyeloop.model_backend.base import Sampling as Sampling
    from keyeloop.runtime.budget import Limits as Limits
    from keyeloop.runtime.content import Image as Image
    from keyeloop.runtime.content import Text as Text
    from keyeloop.runtime.content import Video as Video
    from keyeloop.runtime.errors import InputError as InputError
    from keyeloop.runtime.errors import KeyeloopError as KeyeloopError
    from keyeloop.runtime.errors import OperatorError as OperatorError
    from keyeloop.runtime.errors import ToolCrashed as ToolCrashed
    from keyeloop.runtime.errors import ToolError as ToolError
    from keyeloop.runtime.errors import UsageError as UsageError
    from keyeloop.runtime.prices import Prices as Prices
    from keyeloop.runtime.trajectory import Trajectory as Trajectory
    from keyeloop.tools.base import Tool as Tool
    from keyeloop.tools.base import ToolContext as ToolContext
    from keyeloop.tools.decorate import tool as tool
    from keyeloop.tools.toolset import Toolset as Toolset

__version__ = "0.1.0"

_HOMES = {
    "Agent": "agent.agent",
    "Answer": "agent.answer",
    "Image": "runtime.content",
    "InputError": "runtime.errors",
    "KeyeloopError": "runtime.errors",
    "Limits": "runtime.budget",
    "OperatorError": "runtime.errors",
    "Prices": "runtime.prices",
    "Sampling": "model_backend.base",
    "Task": "agent.task",
    "TaskOutcome": "agent.batch.many",
    "Text": "runtime.content",
    "Tool": "tools.base",
    "ToolContext": "tools.base",
    "ToolCrashed": "runtime.errors",
    "ToolError": "runtime.errors",
    "Toolset": "tools.toolset",
    "Trajectory": "runtime.trajectory",
    "UsageError": "runtime.errors",
    "Video": "runtime.content",
    "evaluate": "agent.evaluation.evaluate",
    "tool": "tools.decorate",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
