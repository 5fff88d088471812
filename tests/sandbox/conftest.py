"""What tests of the sandbox share: engines, the ways in which bubblewrap can be started, a sandbox for questions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from keyeloop.sandbox.bwrap_plan import Way
from keyeloop.sandbox.session import WorkerSandbox
from tests.sandbox.engines import ENGINES, WALLS, Engine, marked, plan


@pytest.fixture(scope="module", params=marked(ENGINES))
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each engine, the default way."""
    return ENGINES[request.param]()


@pytest.fixture(scope="module", params=marked(WALLS))
def wall(request: pytest.FixtureRequest) -> Engine:
    """Each engine in each of its ways."""
    return WALLS[request.param]()


@pytest.fixture(scope="module", params=["userns", "setpriv"])
def way(request: pytest.FixtureRequest) -> Way:
    """Each way of starting bubblewrap, as far as this user can take it."""
    plan(request.param)
    chosen: Way = request.param
    return chosen


@pytest.fixture(scope="module")
def walled(wall: Engine) -> Iterator[WorkerSandbox]:
    """One sandbox a module and wall; tests must not end it."""
    with wall.open() as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def shared(engine: Engine) -> Iterator[WorkerSandbox]:
    """One sandbox a module and engine; tests must not end it."""
    with engine.open() as sandbox:
        yield sandbox
