"""A started worker as the session sees it, and the first bytes that make a Python into one."""

from __future__ import annotations

import importlib.resources
import json
from typing import Any, Final, Protocol

from keyeloop.sandbox.frames import FramePipe
from keyeloop.sandbox.results import Isolation
from keyeloop.sandbox.spec import OUTPUTS, WORK, SandboxSpec

BOOT: Final = """
import json, os, sys, types
def take(size):
    data = b""
    while len(data) < size:
        piece = os.read(0, size - len(data))
        if not piece:
            os._exit(0)
        data += piece
    return data
for name, text in json.loads(take(int.from_bytes(take(4), "big"))):
    module = types.ModuleType(name)
    module.__package__ = "inside"
    module.__path__ = []
    sys.modules[name] = module
    exec(compile(text, "<" + name + ">", "exec"), module.__dict__)
module.Worker().serve()
"""
"""What an engine passes to Python with ``-c``: it takes the program of ``inside/`` from standard input, and runs it."""

_MODULES: Final = ("pipe", "capture", "pictures", "screen", "files", "worker")


def program() -> bytes:
    """What :data:`BOOT` reads first: the length and text of the program, in the order of its imports."""
    folder = importlib.resources.files("keyeloop.sandbox").joinpath("inside")
    modules = [("inside", "")]
    modules += [(f"inside.{name}", folder.joinpath(f"{name}.py").read_text(encoding="utf-8")) for name in _MODULES]
    text = json.dumps(modules).encode()
    return len(text).to_bytes(4, "big") + text


def greeting(spec: SandboxSpec, setup: dict[str, Any]) -> dict[str, Any]:
    """The worker's first message; ``setup`` is what the engine adds."""
    names = ("stdout_bytes", "frame_bytes", "artifact_count", "artifact_bytes")
    return {
        "limits": {name: getattr(spec.limits, name) for name in names},
        "preimport": list(spec.preimport),
        "work": str(WORK),
        "outputs": str(OUTPUTS),
        "links": {mount.inside.name: str(mount.inside) for mount in spec.mounts},
        **setup,
    }


class Running(Protocol):
    """A worker process that an engine has started, before the first message."""

    pipe: FramePipe
    setup: dict[str, Any]
    """What the engine adds to the worker's first message: ``capture``, ``rlimits``, ``site``, and ``own_pids`` where
    its process namespace is its own: there, and only there, interrupted code takes all that it started along."""

    def confirm(self) -> Isolation:
        """Check from the host's side that the worker, now ready, is isolated. Raises SandboxError if it is not."""

    def exited(self) -> bool:
        """Whether it is gone."""

    def interrupt(self) -> None:
        """Send the worker SIGINT; no harm once it is gone."""

    def expire(self, at_s: float) -> None:
        """End it by itself at this monotonic time."""

    def oom_kills(self) -> int:
        """How often the kernel has killed one of its processes for memory; 0 where that cannot be told."""

    def leftovers(self, limit_bytes: int) -> tuple[str, str]:
        """What a worker that is gone had written, or what an engine said when it could not start."""

    def end(self) -> None:
        """Kill every process and free everything. May be called twice."""
