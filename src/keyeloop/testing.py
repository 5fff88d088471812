"""For tests of what is built on keyeloop: a scripted model, a sandbox that runs nothing, a guard against real models.

``ScriptedBackend`` says what it is told to, ``call`` and ``calls`` write its tool calls; ``FakeSandbox`` gives
prepared results, ``executed`` writes one, ``python_tool`` puts it behind the ``python`` tool;
``forbid_model_requests`` makes a request to a real model an error.
"""

from __future__ import annotations

from collections.abc import Callable

from keyeloop.model_backend.forbidding import forbid_model_requests
from keyeloop.model_backend.scripted import PatchCost, ScriptedBackend, call, calls
from keyeloop.runtime.errors import ModelRequestForbidden
from keyeloop.sandbox.fake import FakeSandbox, executed
from keyeloop.sandbox.protocol import Sandbox
from keyeloop.sandbox.results import Display, ExecError, ExecResult
from keyeloop.tools.python import Python

__all__ = [
    "Display",
    "ExecError",
    "ExecResult",
    "FakeSandbox",
    "ModelRequestForbidden",
    "PatchCost",
    "ScriptedBackend",
    "call",
    "calls",
    "executed",
    "forbid_model_requests",
    "python_tool",
]


def python_tool(sandbox: Sandbox | Callable[[], Sandbox]) -> Python:
    """The ``python`` tool on a sandbox that is already there, for one run; on a function that makes one, for several.

    The run closes its sandbox when it ends. Nothing isolates here but the sandbox that is passed in.
    """
    return Python(opener=lambda spec, engine: sandbox() if callable(sandbox) else sandbox)
