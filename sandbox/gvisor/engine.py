"""The last engine of ``auto``: gVisor alone, where root has ``runsc`` but neither bubblewrap nor a Docker daemon."""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path
from typing import ClassVar

from keyeloop.runtime.errors import InputError, SandboxError, SandboxUnavailable
from keyeloop.sandbox.gvisor.worker import RunscWorker
from keyeloop.sandbox.probe import attack
from keyeloop.sandbox.results import Availability
from keyeloop.sandbox.session import WorkerSandbox
from keyeloop.sandbox.spec import SandboxSpec


class Runsc(WorkerSandbox):
    """A sandbox made by ``runsc``. Code meets gVisor's kernel, with this machine's Python."""

    engine: ClassVar[str] = "runsc"

    @classmethod
    def available(cls, spec: SandboxSpec | None = None) -> Availability:
        """Start one, attack it, and say whether it held. Found once per process and interpreter."""
        try:
            choose_runsc(spec or SandboxSpec())
        except InputError as error:
            return Availability(False, cls.engine, str(error), "name another Python (SandboxSpec.python)")
        except SandboxUnavailable as error:
            reason, _, remedy = str(error).rpartition("; ")
            return Availability(False, cls.engine, reason, remedy)
        return Availability(True, cls.engine, "", "")

    def _launch(self) -> RunscWorker:
        return RunscWorker(choose_runsc(self.spec), self.spec)


def choose_runsc(spec: SandboxSpec) -> Path:
    """The program, after it has withstood the probe.

    Raises SandboxUnavailable whose text is the reason, a semicolon, and what to do.
    """
    found = shutil.which("runsc")
    if found is None:
        raise SandboxUnavailable("no runsc was found; optional: install gVisor (on Debian: `runsc`)")
    if os.geteuid() != 0:
        raise SandboxUnavailable("runsc alone needs root here; use bubblewrap, or a Docker daemon that has runsc")
    if reason := _probe(Path(found), spec.python):
        raise SandboxUnavailable(f"runsc cannot isolate code here: {reason}; install a newer gVisor")
    return Path(found)


@functools.cache
def _probe(runsc: Path, python: Path | None) -> str:
    """Why ``runsc`` does not hold on this machine; empty if it does."""
    try:
        with _Probed(runsc, SandboxSpec(python=python)) as sandbox:
            return attack(sandbox)
    except SandboxError as error:
        return " ".join(str(error).replace(";", ",").split())


class _Probed(Runsc):
    """A sandbox before it is known to hold."""

    def __init__(self, runsc: Path, spec: SandboxSpec) -> None:
        super().__init__(spec)
        self._runsc = runsc

    def _launch(self) -> RunscWorker:
        return RunscWorker(self._runsc, self.spec)
