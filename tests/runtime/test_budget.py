"""Budgets: each limit is reached when it should be, and not before."""

from __future__ import annotations

import pytest

from keyeloop.runtime.budget import Budget, Limits
from keyeloop.runtime.content import Usage
from keyeloop.runtime.errors import ConfigError


class HandClock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds

    def run_id(self) -> str:
        return "run"


def test_nothing_is_spent_at_first() -> None:
    budget = Budget(Limits(), HandClock())
    assert budget.spent() is None
    assert budget.remaining() == {
        "turns": 24,
        "tool_calls": 64,
        "total_tokens": None,
        "visual_tokens": None,
        "seconds": None,
        "cost": None,
    }


def test_turns_and_calls() -> None:
    budget = Budget(Limits(turns=2, tool_calls=3), HandClock())
    budget.charge_turn()
    budget.charge_calls(2)
    assert budget.spent() is None
    budget.charge_calls(2)
    assert budget.spent() == "tool_calls" and budget.remaining()["tool_calls"] == 0
    budget.charge_turn()
    assert budget.spent() == "turns"


def test_total_tokens_count_input_and_output_of_every_request() -> None:
    budget = Budget(Limits(total_tokens=260), HandClock())
    budget.charge_usage(Usage(input_tokens=100, cached_tokens=90, output_tokens=20))
    assert budget.spent() is None and budget.remaining()["total_tokens"] == 140
    budget.charge_usage(Usage(input_tokens=120, output_tokens=20))
    assert budget.spent() == "total_tokens"
    assert budget.usage == Usage(220, 90, 0, 40, 0)


def test_a_picture_is_charged_once_while_it_stays_in_the_context() -> None:
    budget = Budget(Limits(visual_tokens=200), HandClock())
    for shown in (90, 90, 135, 45, 90):  # two frames, one more, two evicted, one more
        budget.charge_usage(Usage(input_tokens=1000, visual_tokens=shown))
    assert budget.used()["visual_tokens"] == 90 + 45 + 45
    budget.charge_usage(Usage(visual_tokens=110))
    assert budget.spent() == "visual_tokens"


def test_pictures_in_the_place_of_evicted_ones_are_charged() -> None:
    budget = Budget(Limits(visual_tokens=200), HandClock())
    budget.charge_usage(Usage(visual_tokens=150))
    budget.forget_pictures(100)
    budget.charge_usage(Usage(visual_tokens=140))
    assert budget.used()["visual_tokens"] == 150 + 90
    budget.forget_pictures(1000)
    assert budget.used()["visual_tokens"] == 240


def test_seconds_run_from_the_start() -> None:
    clock = HandClock()
    budget = Budget(Limits(seconds=5), clock)
    clock.seconds += 4.9
    assert budget.spent() is None
    clock.seconds += 0.1
    assert budget.spent() == "seconds"


@pytest.mark.parametrize("limit", ["turns", "tool_calls", "total_tokens", "visual_tokens", "seconds"])
def test_a_limit_must_be_positive(limit: str) -> None:
    with pytest.raises(ConfigError, match=limit):
        Limits(**{limit: 0})
