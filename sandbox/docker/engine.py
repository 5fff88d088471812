"""The engine for machines with a Docker daemon: a container for each sandbox, by runc, or by gVisor where it is there.

With runc it shares the host's kernel; with gVisor's ``runsc`` code meets a kernel of its own.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import ClassVar

from keyeloop.runtime.errors import SandboxError, SandboxUnavailable
from keyeloop.sandbox.docker.daemon import GVISOR, IMAGE, Daemon, connect
from keyeloop.sandbox.docker.owner import sweep
from keyeloop.sandbox.docker.worker import Choice, DockerWorker
from keyeloop.sandbox.probe import attack
from keyeloop.sandbox.results import Availability
from keyeloop.sandbox.session import WorkerSandbox
from keyeloop.sandbox.spec import SandboxSpec


class Docker(WorkerSandbox):
    """A sandbox made by a Docker daemon from an image that is there already."""

    engine: ClassVar[str] = "docker"

    def __init__(self, spec: SandboxSpec | None = None, *, runtime: str | None = None) -> None:
        """``runtime`` names one that the daemon has; None takes ``runsc`` where it is registered, else its default."""
        super().__init__(spec)
        self._runtime = runtime

    @classmethod
    def available(cls, spec: SandboxSpec | None = None) -> Availability:
        """Start one, attack it, and say whether it held. Found once per process, image and runtime."""
        try:
            choose(spec or SandboxSpec(), None)
        except SandboxUnavailable as error:
            reason, _, remedy = str(error).rpartition("; ")
            return Availability(False, cls.engine, reason, remedy)
        return Availability(True, cls.engine, "", "")

    def _launch(self) -> DockerWorker:
        choice = choose(self.spec, self._runtime)
        sweep(choice.daemon)
        return DockerWorker(choice, self.spec)


def choose(spec: SandboxSpec, runtime: str | None) -> Choice:
    """The daemon, the image and the runtime, after they have withstood the probe; and how the worker is reached.

    Raises SandboxUnavailable whose text is the reason, a semicolon, and what to do.
    """
    if spec.python is not None:
        raise SandboxUnavailable(
            "Docker runs the Python of its image, not one of this machine; "
            "leave SandboxSpec.python out, or make an image of it: keyeloop sandbox build-image --python PATH"
        )
    daemon = connect()
    image = daemon.image_id(spec.image or IMAGE)
    chosen = runtime or daemon.default_runtime()
    if chosen and chosen not in daemon.runtimes:
        known = ", ".join(daemon.runtimes)
        raise SandboxUnavailable(f"the Docker daemon has no runtime {chosen}, only {known}; register it there")
    reason, by_pipes = _probe(daemon, image, chosen)
    if reason:
        raise SandboxUnavailable(f"Docker cannot isolate code here: {reason}; look into the daemon's settings")
    return Choice(daemon, image, chosen, by_pipes)


@functools.cache
def _probe(daemon: Daemon, image: str, runtime: str | None) -> tuple[str, bool]:
    """Why a container of ``image`` does not hold, empty if it does; and whether named pipes reach it.

    They do not where containers have a kernel of their own, or where a security module keeps the folder from them.
    """
    choice = Choice(daemon, image, runtime, by_pipes=daemon.local and runtime != GVISOR)
    if choice.by_pipes and not _attacked(choice):
        return "", True
    return _attacked(replace(choice, by_pipes=False)), False


def _attacked(choice: Choice) -> str:
    try:
        with _Probed(choice) as sandbox:
            return attack(sandbox)
    except SandboxError as error:
        return " ".join(str(error).replace(";", ",").split())


class _Probed(Docker):
    """A container before it is known to hold."""

    def __init__(self, choice: Choice) -> None:
        super().__init__(SandboxSpec(), runtime=choice.runtime)
        self._choice = choice

    def _launch(self) -> DockerWorker:
        return DockerWorker(self._choice, self.spec)
