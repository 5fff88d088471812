"""What tests of the sandbox share: the ways in which one can be started here, and a sandbox for harmless questions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from keyeloop.sandbox import Limits, SandboxSpec
from keyeloop.sandbox.bubblewrap import Bubblewrap
from keyeloop.sandbox.bwrap_plan import BwrapPlan, Way, find_bwrap
from keyeloop.sandbox.interpreter import interpreter

SYSTEM_PYTHON = Path("/usr/bin/python3")
QUICK = Limits(wall_s=10, interrupt_grace_s=0.5)


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


@pytest.fixture(scope="module", params=["userns", "setpriv"])
def way(request: pytest.FixtureRequest) -> Way:
    """Each way of starting bubblewrap, as far as this user can take it."""
    plan(request.param)
    chosen: Way = request.param
    return chosen


@pytest.fixture(scope="module")
def walled(way: Way) -> Iterator[Bubblewrap]:
    """One sandbox a module and way; tests must not end it."""
    with Bubblewrap(SandboxSpec(limits=QUICK), plan=plan(way)) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def shared() -> Iterator[Bubblewrap]:
    """One sandbox a module, started the default way with this Python; tests must not end it."""
    found = Bubblewrap.available()
    if not found.ok:
        pytest.skip(f"{found.reason}; {found.remedy}")
    with Bubblewrap(SandboxSpec(limits=QUICK)) as sandbox:
        yield sandbox
