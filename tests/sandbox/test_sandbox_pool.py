"""Sandboxes that wait: given away once, replaced in the background, ended with the pool."""

from __future__ import annotations

import threading
import time

import pytest

from keyeloop.runtime.errors import ConfigError, SandboxError, SandboxUnavailable
from keyeloop.sandbox import SandboxPool, SandboxSpec
from keyeloop.sandbox.fake import FakeSandbox
from keyeloop.sandbox.pool import LIBRARIES
from keyeloop.sandbox.protocol import Sandbox
from tests.sandbox.engines import QUICK, Engine
from tests.sandbox.host_view import wait_for


class Opener:
    """Opens sandboxes that run nothing, and counts; ``hold`` keeps it from finishing, ``fails`` makes it raise."""

    def __init__(self) -> None:
        self.opened: list[FakeSandbox] = []
        self.may_go = threading.Event()
        self.may_go.set()
        self.fails = False
        self.error: Exception = SandboxUnavailable("no engine; install one")

    def __call__(self, spec: SandboxSpec, engine: str) -> Sandbox:
        assert self.may_go.wait(5)
        if self.fails:
            raise self.error
        self.opened.append(FakeSandbox(spec=spec))
        return self.opened[-1]


def test_each_is_given_away_once_and_replaced() -> None:
    opener = Opener()
    with SandboxPool(size=2, opener=opener) as pool:
        assert pool.fill(5) and len(opener.opened) == 2
        taken = [pool.take(), pool.take()]
        assert pool.fill(5) and len(opener.opened) == 4
        taken.append(pool.take())
        assert len({id(one) for one in taken}) == 3 and opener.opened[0].spec.preimport == LIBRARIES
    assert wait_for(lambda: len(opener.opened) == 5 and all(one.closed for one in opener.opened if one not in taken), 2)
    assert not any(one.closed for one in opener.opened if one in taken), "those belong to their takers"
    pool.close()
    with pytest.raises(SandboxError, match="closed"):
        pool.take()


def test_a_taker_waits_for_the_one_that_is_starting() -> None:
    opener = Opener()
    opener.may_go.clear()
    with SandboxPool(SandboxSpec(preimport=("wave",)), opener=opener) as pool:
        threading.Timer(0.1, opener.may_go.set).start()
        pool.take()
        assert opener.opened[0].started and pool.spec.preimport == ("wave",)


@pytest.mark.parametrize("error", [SandboxUnavailable("no engine; install one"), OSError("install one")])
def test_what_keeps_sandboxes_from_starting_is_told_to_the_taker(error: Exception) -> None:
    opener = Opener()
    opener.fails, opener.error = True, error
    with SandboxPool(opener=opener) as pool:
        assert not pool.fill(5)
        with pytest.raises(type(error), match="install one"):
            pool.take()
        opener.fails = False
        assert pool.take() is opener.opened[0]
    with pytest.raises(ConfigError, match="one at least"):
        SandboxPool(size=0, opener=opener)


def test_one_that_was_starting_when_the_pool_closed_is_ended() -> None:
    opener = Opener()
    opener.may_go.clear()
    pool = SandboxPool(opener=opener)
    pool.close()
    opener.may_go.set()
    assert wait_for(lambda: len(opener.opened) == 1 and opener.opened[0].closed, 2)


@pytest.mark.sandbox
def test_a_real_one_is_there_at_once_with_its_libraries(engine: Engine) -> None:
    spec = SandboxSpec(limits=QUICK, preimport=("wave",))
    with SandboxPool(spec, opener=lambda spec, _: engine.make(spec)) as pool:
        assert pool.fill()
        with pool.take() as sandbox:
            pool.fill()  # a replacement that is starting would make the next line measure the machine
            begun_s = time.monotonic()
            assert sandbox.exec("import sys; print('wave' in sys.modules)").stdout == "True\n"
            assert time.monotonic() - begun_s < 0.5
            sandbox.exec("mine = 1")
        with pool.take() as other:
            result = other.exec("mine")
            assert result.error is not None and result.error.name == "NameError" and not result.state_lost
