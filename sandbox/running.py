"""A started worker as the session sees it, and the first bytes that make a Python into one."""

from __future__ import annotations

import importlib.resources
import json
import time
from typing import Any, Final, Protocol

from keyeloop.runtime.errors import SandboxError
from keyeloop.sandbox.frames import FramePipe
from keyeloop.sandbox.results import Isolation
from keyeloop.sandbox.spec import OUTPUTS, WORK, Limits, SandboxSpec

CONFIRM_S: Final = 10.0
"""For the worker to hand over a file before any code has run."""

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


def json_bytes(limits: Limits) -> int:
    """The most that the JSON of one frame may take: parsing multiplies it."""
    return (1 << 20) + 64 * limits.stdout_bytes


def frame_pipe(requests_fd: int, replies_fd: int, exited_fd: int, limits: Limits) -> FramePipe:
    """The host's end of two pipes, with the bounds of ``limits``."""
    return FramePipe(requests_fd, replies_fd, exited_fd, json_bytes=json_bytes(limits), frame_bytes=limits.frame_bytes)


def read_before_code(pipe: FramePipe, path: str) -> str:
    """A file inside, asked of a worker that has run no code yet and is therefore believed. Raises SandboxError."""
    deadline_s = time.monotonic() + CONFIRM_S
    pipe.send({"id": 0, "op": "get", "path": path, "offset": 0, "size": 1 << 16}, b"", deadline_s)
    header, data = pipe.receive(deadline_s)
    if "problem" in header:
        raise SandboxError(f"the sandbox cannot be checked: {path}: {header['problem']}")
    return data.decode("ascii", "replace")


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
