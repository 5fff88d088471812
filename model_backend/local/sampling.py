"""Draws the next token from logits."""

from __future__ import annotations

import torch

from keyeloop.model_backend.base import Sampling


class Sampler:
    """Draws tokens by one :class:`Sampling`; the same seed draws the same tokens from the same logits."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._generator = torch.Generator()
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed)

    def draw(self, logits: torch.Tensor, allowed: torch.Tensor | None = None) -> int:
        """The next id from ``logits`` [vocab]; ``allowed`` [vocab] is True where an id may be drawn."""
        if allowed is not None:
            logits = logits.masked_fill(~allowed, -torch.inf)
        if self._sampling.temperature <= 0:
            return int(logits.argmax())
        logits = logits.float().cpu() / self._sampling.temperature
        if 0 < self._sampling.top_k < logits.numel():
            kth = logits.topk(self._sampling.top_k).values[-1]
            logits = logits.masked_fill(logits < kth, -torch.inf)
        weights = logits.softmax(0)
        if self._sampling.top_p < 1:
            ordered, order = weights.sort(descending=True, stable=True)
            before = ordered.cumsum(0) - ordered
            weights = weights.index_fill(0, order[before >= self._sampling.top_p], 0.0)
        return int(torch.multinomial(weights, 1, generator=self._generator))
