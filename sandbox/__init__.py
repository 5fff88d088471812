"""Where untrusted code runs: one protocol, one worker, several engines."""

if not __name__.startswith("keyeloop."):
    raise ImportError(
        f"import keyeloop.{__name__}, not {__name__}: a second copy of its classes would not compare equal"
    )

from keyeloop.sandbox.opening import availability, exec_async, open_sandbox, open_sandbox_async
from keyeloop.sandbox.pool import SandboxPool
from keyeloop.sandbox.protocol import Sandbox
from keyeloop.sandbox.results import Artifact, Availability, Display, ExecError, ExecResult, Isolation
from keyeloop.sandbox.spec import Limits, Mount, SandboxSpec

__all__ = [
    "Artifact",
    "Availability",
    "Display",
    "ExecError",
    "ExecResult",
    "Isolation",
    "Limits",
    "Mount",
    "Sandbox",
    "SandboxPool",
    "SandboxSpec",
    "availability",
    "exec_async",
    "open_sandbox",
    "open_sandbox_async",
]
