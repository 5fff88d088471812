"""How much a run may use, and how much it has used."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from keyeloop.runtime.clock import Clock
from keyeloop.runtime.content import Usage
from keyeloop.runtime.errors import ConfigError
from keyeloop.runtime.prices import Prices


@dataclass(frozen=True)
class Limits:
    """What one run may use; None sets no limit. ConfigError for a limit that is not positive."""

    turns: int | None = 24
    """Requests to the model, the last one without tools not counted."""
    tool_calls: int | None = 64
    total_tokens: int | None = None
    """Input and output of all requests together, cached input included."""
    visual_tokens: int | None = None
    """Picture tokens that enter the context, each counted once."""
    seconds: float | None = None
    cost: float | None = None
    """In the currency of the model's prices, which must be known."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not value > 0:
                raise ConfigError(f"limit {field.name} is {value!r}: give a positive number, or none for no limit")


class Budget:
    """Counts what a run uses against its limits, from the moment it is made."""

    def __init__(self, limits: Limits, clock: Clock, prices: Prices | None = None) -> None:
        self.limits = limits
        self.prices = prices
        self.usage = Usage()
        """Sum of all requests."""
        self._clock = clock
        self._started_s = clock.monotonic()
        self._turns = self._calls = self._visual_tokens = self._shown_tokens = 0

    @property
    def elapsed_s(self) -> float:
        """Seconds since the budget was made."""
        return self._clock.monotonic() - self._started_s

    def charge_turn(self) -> None:
        """One more request is about to be sent."""
        self._turns += 1

    def charge_calls(self, calls: int = 1) -> None:
        """So many tool calls are about to run."""
        self._calls += calls

    def priced(self, usage: Usage) -> Usage:
        """One request's usage with its cost, where prices are known and it has none yet."""
        return usage if self.prices is None or usage.cost is not None else replace(usage, cost=self.prices.cost(usage))

    def charge_usage(self, usage: Usage) -> None:
        """A reply has come. Only the growth of its picture tokens over the request before counts as new."""
        self.usage += usage
        self._visual_tokens += max(0, usage.visual_tokens - self._shown_tokens)
        self._shown_tokens = usage.visual_tokens

    def recall_pictures(self, tokens: int) -> None:
        """So many picture tokens were in the context before this budget was made: they are not new."""
        self._shown_tokens = tokens

    def forget_pictures(self, tokens: int) -> None:
        """So many picture tokens have left the context: what comes in their place is new."""
        self._shown_tokens = max(0, self._shown_tokens - tokens)

    def used(self) -> dict[str, float]:
        """What has been used so far, by the name of its limit."""
        return {
            "turns": self._turns,
            "tool_calls": self._calls,
            "total_tokens": self.usage.input_tokens + self.usage.output_tokens,
            "visual_tokens": self._visual_tokens,
            "seconds": self.elapsed_s,
            "cost": self.usage.cost or 0.0,
        }

    def remaining(self) -> dict[str, float | None]:
        """What is left of each limit, never below 0; None where there is no limit."""
        used = self.used()
        return {
            name: None if limit is None else max(0, limit - used[name]) for name, limit in vars(self.limits).items()
        }

    def spent(self) -> str | None:
        """Name of the first limit that is used up, in the order of :class:`Limits`; None while all have room."""
        return next((name for name, left in self.remaining().items() if left is not None and left <= 0), None)
