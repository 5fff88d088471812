"""A short run of ``soak.py``; the long one is a program."""

from __future__ import annotations

import pytest

from tests.sandbox.engines import Engine
from tests.sandbox.soak import Held, require_nothing_left, soak

pytestmark = pytest.mark.sandbox


def test_random_kills_leave_one_result_a_call_and_nothing_else(engine: Engine) -> None:
    engine.open().close()
    before = Held.now()
    tally = soak(engine.make, sandboxes=5, executions=60, at_once=3)
    assert tally.statuses.total() == 60 and not tally.wrong, tally
    assert tally.statuses["ok"] > 10 and tally.states_lost > 0
    assert tally.kills > 0 or not any(trace.tells for trace in tally.traces)
    require_nothing_left(before, tally, engine.kept_files)
