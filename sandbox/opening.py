"""Opens a sandbox with the best engine that works here, or says why none does."""

from __future__ import annotations

import asyncio
from typing import Final

from keyeloop.runtime.errors import ConfigError, SandboxUnavailable
from keyeloop.sandbox.bubblewrap import Bubblewrap
from keyeloop.sandbox.docker.engine import Docker
from keyeloop.sandbox.gvisor.engine import Runsc
from keyeloop.sandbox.protocol import Sandbox
from keyeloop.sandbox.results import Availability, ExecResult
from keyeloop.sandbox.session import WorkerSandbox
from keyeloop.sandbox.spec import SandboxSpec
from keyeloop.sandbox.unsafe_local import UnsafeLocal

ENGINES: Final[tuple[type[WorkerSandbox], ...]] = (Bubblewrap, Docker, Runsc)
"""In the order in which ``auto`` tries them. Each isolates."""
BY_NAME_ONLY: Final[tuple[type[WorkerSandbox], ...]] = (UnsafeLocal,)
"""Never taken by ``auto``."""


def open_sandbox(spec: SandboxSpec | None = None, engine: str = "auto") -> Sandbox:
    """Start a sandbox. ``engine`` is a name, or ``auto`` for the first that works on this machine.

    Raises SandboxUnavailable with the reason and the remedy of each engine tried, ConfigError for an unknown name.
    Code never runs without isolation instead.
    """
    spec = spec or SandboxSpec()
    reasons = []
    for candidate in _candidates(engine):
        try:
            sandbox = candidate(spec)
            sandbox.start()
            return sandbox
        except SandboxUnavailable as error:
            reasons.append(str(error))
    raise SandboxUnavailable(" / ".join(reasons))


def availability(spec: SandboxSpec | None = None, engine: str = "auto") -> Availability:
    """Whether :func:`open_sandbox` would work, with the reason and remedy otherwise."""
    found = []
    for candidate in _candidates(engine):
        found.append(candidate.available(spec))
        if found[-1].ok:
            return found[-1]
    return found[0]


async def open_sandbox_async(spec: SandboxSpec | None = None, engine: str = "auto") -> Sandbox:
    """:func:`open_sandbox` in a thread."""
    return await asyncio.to_thread(open_sandbox, spec, engine)


async def exec_async(sandbox: Sandbox, code: str, *, timeout_s: float | None = None) -> ExecResult:
    """:meth:`Sandbox.exec` in a thread; cancelling interrupts the code."""
    try:
        return await asyncio.to_thread(sandbox.exec, code, timeout_s=timeout_s)
    except asyncio.CancelledError:
        sandbox.interrupt()
        raise


def _candidates(engine: str) -> tuple[type[WorkerSandbox], ...]:
    if engine == "auto":
        return ENGINES
    named = (*ENGINES, *BY_NAME_ONLY)
    chosen = tuple(candidate for candidate in named if candidate.engine == engine)
    if not chosen:
        known = ", ".join(("auto", *(candidate.engine for candidate in named)))
        raise ConfigError(f"there is no sandbox engine {engine!r}; the engines are {known}")
    return chosen
