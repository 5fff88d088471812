"""Every engine that tests run against: how to open a sandbox of it, or why it cannot be had here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from keyeloop.runtime.errors import SandboxUnavailable
from keyeloop.sandbox import Limits, SandboxSpec
from keyeloop.sandbox.bubblewrap import Bubblewrap
from keyeloop.sandbox.bwrap_plan import BwrapPlan, Way, find_bwrap
from keyeloop.sandbox.docker.daemon import GVISOR
from keyeloop.sandbox.docker.engine import Docker, choose
from keyeloop.sandbox.gvisor.engine import Runsc
from keyeloop.sandbox.interpreter import interpreter
from keyeloop.sandbox.session import WorkerSandbox

SYSTEM_PYTHON: Final = Path("/usr/bin/python3")
QUICK: Final = Limits(wall_s=10, interrupt_grace_s=0.5)
KEPT_CONNECTIONS: Final = 32
"""At most so many does the client of a Docker daemon keep."""


@dataclass(frozen=True)
class Engine:
    """One way of isolating code that works on this machine."""

    name: str
    make: Callable[[SandboxSpec], WorkerSandbox]
    kept_files: int = 0
    """Descriptors that its client keeps open to use again: connections to a daemon."""
    gvisor: bool = False
    """Whether code meets gVisor's kernel: what uses up too much ends the sandbox, not the execution alone."""

    def open(self, limits: Limits = QUICK, **fields: Any) -> WorkerSandbox:
        """A sandbox that starts at its first use; ``fields`` are those of :class:`SandboxSpec`."""
        return self.make(SandboxSpec(limits=limits, **fields))


def plan(way: Way) -> BwrapPlan:
    """The plan for one way, with a Python that it can read; skips, saying why, where there is none."""
    bwrap = find_bwrap()
    if bwrap is None:
        pytest.skip("no bubblewrap is installed")
    as_root = os.geteuid() == 0
    if way == "setpriv" and not as_root:
        pytest.skip("mounting without a user namespace needs root")
    found = BwrapPlan(bwrap, interpreter(), way, as_root)
    if found.hidden(()) and SYSTEM_PYTHON.exists():
        found = replace(found, python=interpreter(SYSTEM_PYTHON))
    if hidden := found.hidden(()):
        pytest.skip(f"{hidden} cannot be read by the sandbox's user")
    return found


def bubblewrap() -> Engine:
    """Bubblewrap the default way, with this Python."""
    found = Bubblewrap.available()
    if not found.ok:
        pytest.skip(f"{found.reason}; {found.remedy}")
    return Engine("bubblewrap", Bubblewrap)


def bubblewrap_by(way: Way) -> Engine:
    """Bubblewrap started one way."""
    return Engine(f"bubblewrap-{way}", partial(Bubblewrap, plan=plan(way)))


def docker(runtime: str = "runc") -> Engine:
    """Docker with one of the daemon's runtimes."""
    try:
        choose(SandboxSpec(), runtime)
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    return Engine("docker", partial(Docker, runtime=runtime), KEPT_CONNECTIONS, gvisor=runtime == GVISOR)


def runsc() -> Engine:
    """gVisor alone."""
    found = Runsc.available()
    if not found.ok:
        pytest.skip(f"{found.reason}; {found.remedy}")
    return Engine("runsc", Runsc, gvisor=True)


ENGINES: Final[Mapping[str, Callable[[], Engine]]] = {
    "bubblewrap": bubblewrap,
    "docker": docker,
    "docker-runsc": partial(docker, GVISOR),
    "runsc": runsc,
}
"""By name; each skips where it cannot run."""
WALLS: Final[Mapping[str, Callable[[], Engine]]] = {
    "bubblewrap-userns": partial(bubblewrap_by, "userns"),
    "bubblewrap-setpriv": partial(bubblewrap_by, "setpriv"),
    "docker": docker,
    "docker-runsc": partial(docker, GVISOR),
    "runsc": runsc,
}
"""Every way to isolate, for attacks: an engine that starts in several ways has several."""


def marked(names: Iterable[str]) -> list[Any]:
    """Parameters of a fixture; those that need a Docker daemon, or gVisor, say so."""
    needs = {"docker": pytest.mark.docker, "docker-runsc": pytest.mark.gvisor, "runsc": pytest.mark.gvisor}
    return [pytest.param(name, marks=needs.get(name, ())) for name in names]
