"""No isolation at all: the worker as an ordinary process of this user. Never chosen; to be typed in full.

For developing where nothing else works, with code that is trusted. Code has the network, every file and every right of
this user.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from typing import Any, ClassVar, Final

from keyeloop.runtime.errors import SandboxError
from keyeloop.sandbox.interpreter import interpreter
from keyeloop.sandbox.own_folder import make_folder
from keyeloop.sandbox.process import Child
from keyeloop.sandbox.results import Availability, Isolation
from keyeloop.sandbox.running import BOOT, frame_pipe
from keyeloop.sandbox.session import WorkerSandbox
from keyeloop.sandbox.spec import INPUTS, OUTPUTS, WORK, SandboxSpec

END_S: Final = 2.0


class UnsafeLocal(WorkerSandbox):
    """A worker without walls. Its folders lie in a temporary one: code starts in ``work`` and finds ``../in``,
    ``../out`` beside it; ``put``, ``get`` and artifacts go by the usual names."""

    engine: ClassVar[str] = "unsafe-local"

    @classmethod
    def available(cls, spec: SandboxSpec | None = None) -> Availability:
        """Always, for whoever types its name."""
        return Availability(True, cls.engine, "", "")

    def _launch(self) -> LocalWorker:
        return LocalWorker(self.spec)


class LocalWorker:
    """Owns the process, its group, and the folder that stands for ``/``."""

    def __init__(self, spec: SandboxSpec) -> None:
        """Start it up to the point where the worker waits for its first message. Raises SandboxError."""
        self.folder = make_folder("unsafe")
        self._outputs = tuple((self.folder / name).open("w+b") for name in ("stdout", "stderr"))
        self._ended = False
        for inside in (WORK, OUTPUTS, INPUTS):
            (self.folder / inside.relative_to("/")).mkdir()
        for mount in spec.mounts:
            link = self.folder / mount.inside.relative_to("/")
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(mount.source)
        python = interpreter(spec.python)
        environment = {"HOME": str(self.folder), "PATH": os.defpath, "MPLBACKEND": "Agg", **spec.env}
        (requests_out, requests_in), (replies_out, replies_in) = os.pipe(), os.pipe()
        try:
            assignments = [f"{name}={value}" for name, value in environment.items()]
            self._child = Child(
                ["/usr/bin/env", *assignments, str(python.executable), "-s", "-B", "-c", BOOT],
                {"stdin": requests_out, "stdout": replies_in, "stderr": self._outputs[1],
                 "pass_fds": (self._outputs[0].fileno(),)},
            )  # fmt: skip
        except OSError as error:
            os.close(requests_in)
            os.close(replies_out)
            self._forget()
            raise SandboxError(f"{python.executable} did not start: {error}") from error
        finally:
            os.close(requests_out)
            os.close(replies_in)
        self.pipe = frame_pipe(requests_in, replies_out, self._child.exited_fd, spec.limits)
        self.setup: dict[str, Any] = {
            "capture": [self._outputs[0].fileno(), 2],
            "rlimits": {"RLIMIT_CORE": 0, "RLIMIT_FSIZE": spec.limits.file_bytes},
            "site": [str(folder) for folder in python.sites],
            "root": str(self.folder),
            "work": str(self.folder / WORK.relative_to("/")),
            "outputs": str(self.folder / OUTPUTS.relative_to("/")),
        }

    def confirm(self) -> Isolation:
        """Nothing stands between."""
        return Isolation("unsafe-local", "none", os.geteuid(), False, False, True, "none", "none")

    def exited(self) -> bool:
        """Whether the worker is gone."""
        return self._ended or self._child.exited()

    def interrupt(self) -> None:
        """Send the worker SIGINT."""
        self._signal(signal.SIGINT)

    def expire(self, at_s: float) -> None:
        """End it by itself at this monotonic time; children that left its group stay."""
        self._child.expires_at_s = at_s
        if at_s <= time.monotonic():
            self._signal(signal.SIGKILL)

    def oom_kills(self) -> int:
        """Not known."""
        return 0

    def leftovers(self, limit_bytes: int) -> tuple[str, str]:
        """What was written since the last execution began."""
        if self._ended:
            return "", ""
        out, err = (os.pread(file.fileno(), limit_bytes, 0).decode("utf-8", "replace") for file in self._outputs)
        return out, err

    def end(self) -> None:
        """Kill the process group and remove the folder."""
        if self._ended:
            return
        self._signal(signal.SIGKILL)
        self._child.kill()
        if self._child.wait(END_S):
            self._child.forget()
        self.pipe.close()
        self._forget()

    def _signal(self, number: signal.Signals) -> None:
        """To the worker; SIGKILL to its whole group, whose number is the worker's until it has been collected."""
        if self._ended or self._child.exited():
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            (os.killpg if number == signal.SIGKILL else os.kill)(self._child.pid, number)

    def _forget(self) -> None:
        self._ended = True
        for file in self._outputs:
            file.close()
        shutil.rmtree(self.folder, ignore_errors=True)
