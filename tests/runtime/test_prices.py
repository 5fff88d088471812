"""What tokens cost: arithmetic, unknown prices, a limit of cost, journals from before there were costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyeloop.agent.agent import Agent
from keyeloop.agent.wording import usage_words
from keyeloop.model_backend.scripted import ScriptedBackend, call
from keyeloop.runtime.budget import Budget, Limits
from keyeloop.runtime.clock import SystemClock
from keyeloop.runtime.config import load_config
from keyeloop.runtime.content import Usage
from keyeloop.runtime.errors import ConfigError
from keyeloop.runtime.events import ReplyReceived, RunEnded, event_from_line, event_to_line
from keyeloop.runtime.prices import Prices
from keyeloop.runtime.trajectory import Trajectory
from keyeloop.runtime.wire import MessageWire
from keyeloop.tools.decorate import tool

PRICES = Prices(input=2.0, cached=0.5, output=10.0)


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def test_cached_input_has_its_own_price() -> None:
    usage = Usage(input_tokens=1_000_000, cached_tokens=400_000, output_tokens=100_000)
    assert PRICES.cost(usage) == pytest.approx(0.6 * 2 + 0.4 * 0.5 + 0.1 * 10)
    assert Prices(2.0, 10.0).cost(usage) == pytest.approx(2 + 1)


def test_an_unknown_cost_makes_a_sum_unknown_but_nothing_costs_nothing() -> None:
    assert (Usage() + Usage(10, cost=0.5)).cost == 0.5
    assert (Usage(5, cost=0.25) + Usage(10, cost=0.5)).cost == 0.75
    assert (Usage(5) + Usage(10, cost=0.5)).cost is None
    assert (Usage(5) + Usage(10)).cost is None


@pytest.mark.parametrize("price", [-1.0, float("nan"), float("inf")])
def test_a_price_is_a_number_of_money(price: float) -> None:
    with pytest.raises(ConfigError, match="price_output is"):
        Prices(1.0, price)


def test_a_budget_of_cost_is_spent() -> None:
    budget = Budget(Limits(cost=1.0), SystemClock(), PRICES)
    half = budget.priced(Usage(input_tokens=300_000))
    budget.charge_usage(half)
    assert budget.spent() is None
    assert budget.remaining()["cost"] == pytest.approx(0.4)
    budget.charge_usage(half)
    assert budget.spent() == "cost"


async def test_a_run_stops_at_its_cost_and_its_record_tells_it(tmp_path: Path) -> None:
    model = ScriptedBackend([call("add", a=number, b=1) for number in range(9)] + ["9"])
    one = (await Agent(ScriptedBackend(["1"]), [add], runs=tmp_path, prices=Prices(1e6, 0)).run("?")).usage
    assert one.cost == one.input_tokens
    limits = Limits(cost=one.cost * 2.5)
    answer = await Agent(model, [add], runs=tmp_path, prices=Prices(1e6, 0), limits=limits).run("?")
    assert (answer.status, answer.reason.startswith("the limit of cost is reached")) == ("budget", True)
    assert [request.allow_calls for request in model.requests] in ([True] * 2 + [False], [True] * 3 + [False])
    assert answer.usage.cost == answer.usage.input_tokens > 0
    run = Trajectory.read(answer.run)
    assert run.usage.cost == answer.usage.cost
    assert run.start.config["prices"] == {"input": 1e6, "output": 0, "cached": None}
    assert f"cost {answer.usage.cost:.4g}" in usage_words(run.usage)


def test_a_limit_of_cost_needs_prices(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a limit of cost needs prices: set price_input and price_output"):
        Agent(ScriptedBackend([]), [], limits=Limits(cost=1), runs=tmp_path)


def test_prices_come_from_settings_and_the_key_is_none() -> None:
    prices = {"KEYELOOP_PRICE_INPUT": "2", "KEYELOOP_PRICE_OUTPUT": "10"}
    environment = {**prices, "KEYELOOP_API_KEY": "s", "KEYELOOP_COST": "3"}
    config = load_config(environment=environment)
    assert (config.prices, config.limits.cost) == (Prices(2.0, 10.0), 3.0)
    assert "api_key" not in config.model_dump()
    assert load_config(environment={}).prices is None
    with pytest.raises(ConfigError, match="need both price_input and price_output"):
        _ = load_config({"price_cached": 1.0}, environment={}).prices


def test_journals_from_before_read_as_of_unknown_cost() -> None:
    line = event_to_line(RunEnded(status="answered", usage=Usage(7, cost=0.5)))
    old = line.replace(b',"cost":0.5', b"")
    assert old != line
    end = event_from_line(old)
    assert isinstance(end, RunEnded)
    assert end.usage == Usage(7)
    reply = ReplyReceived(turn=1, message=MessageWire(role="assistant"), usage=Usage(7, cost=0.5), finish="stop")
    assert event_from_line(event_to_line(reply)) == reply
