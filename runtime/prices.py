"""What a model's tokens cost, for those who pay by the token."""

from __future__ import annotations

import math
from dataclasses import dataclass

from keyeloop.runtime.content import Usage
from keyeloop.runtime.errors import ConfigError

TOKENS = 1_000_000


@dataclass(frozen=True)
class Prices:
    """Prices of a million tokens, in any one currency. ConfigError for one that is negative or no number."""

    input: float
    output: float
    cached: float | None = None
    """Input that came from a cache; None for the price of other input."""

    def __post_init__(self) -> None:
        for name in ("input", "output", "cached"):
            price = getattr(self, name)
            if price is not None and not (price >= 0 and math.isfinite(price)):
                raise ConfigError(f"price_{name} is {price!r}: give the price of a million tokens, 0 or more")

    def cost(self, usage: Usage) -> float:
        """What one request, or a sum of several, costs."""
        cached = self.input if self.cached is None else self.cached
        fresh = usage.input_tokens - usage.cached_tokens
        return (fresh * self.input + usage.cached_tokens * cached + usage.output_tokens * self.output) / TOKENS
