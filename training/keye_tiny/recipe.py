"""Every number of a training run in one place, and the schedule they make over the share of the time gone by."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from training.keye_tiny.supply import Buckets


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters. Shares are of the whole training time, 0 to 1."""

    peak_rate: float = 1.2e-3
    """Learning rate after the warm-up."""
    warm_up_steps: int = 100
    dense_share: float = 0.65
    """Until here attention is dense and the indexer learns from it; afterwards it is sparse."""
    dense_end_rate: float = 0.3
    """Factor on the peak rate that the dense stage's cosine falls to; the sparse stage goes on from it."""
    end_rate: float = 0.01
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.05
    """On matrices; not on norms and biases."""
    clip: float = 1.0
    """Largest gradient norm, of the indexer and of everything else apart."""
    balance_weight: float = 0.01
    index_weight: float = 1.0
    reading_weight: float = 4.0
    """Weight of a token that is read off a picture; plain tokens weigh 1."""
    decision_weight: float = 4.0
    """Weight of a token that says what to do: the moments to look at, the operator of a sum."""
    box_weights: tuple[float, float] = (0.25, 1.0)
    """Weight of a box's digits at first and at last; it rises linearly over ``box_ramp``."""
    box_ramp: tuple[float, float] = (0.25, 0.5)
    letter_weights: tuple[float, float] = (1.0, 0.1)
    """Weight of naming the letters in each visual token, at first and from ``letter_share`` to the sparse stage."""
    letter_share: float = 0.4
    reader_weight: float = 1.0
    reader_share: float = 0.5
    """Until here every step has reader samples."""
    reader_every: int = 3
    """From there to the sparse stage, one step in so many."""
    ramp_share: float = 0.3
    """Difficulty rises from 0 to 1 over this share at least."""
    exact_to_go_on: float = 0.5
    """It rests while fewer of the readers' readings are exact,"""
    patience_share: float = 0.4
    """but no longer than to here."""
    main_shards: int = 1
    """Micro-batches of trajectories a step and rank."""
    reader_shards: int = 1
    buckets: Buckets = field(default_factory=Buckets)
    real_share: float = 0.005
    """Part of the sequences whose pictures really go through encoder, decoder and resize."""
    print_every_s: float = 20.0

    def sparse(self, progress: float) -> bool:
        """Whether attention is sparse now."""
        return progress >= self.dense_share

    def difficulty(self, progress: float) -> float:
        """Difficulty of new samples, 0 to 1, of a run that has not had to rest."""
        return min(1.0, progress / self.ramp_share) if self.ramp_share > 0 else 1.0

    def harder(self, difficulty: float, gone: float, progress: float, exact: float | None) -> float:
        """Difficulty after a share ``gone``; ``exact`` is the share of exact readings lately, None when unknown."""
        if exact is not None and exact < self.exact_to_go_on and progress < self.patience_share:
            return difficulty
        return min(1.0, difficulty + gone / self.ramp_share) if self.ramp_share > 0 else 1.0

    def kind_weights(self, progress: float) -> tuple[float, ...]:
        """Loss weights by kind of token, in the order of ``sample.Kind``."""
        start, stop = self.box_ramp
        risen = min(max((progress - start) / (stop - start), 0.0), 1.0)
        low, high = self.box_weights
        return 0.0, 1.0, self.reading_weight, low + (high - low) * risen, self.decision_weight

    def letter_weight(self, progress: float) -> float:
        """Weight of the letters' loss."""
        high, low = self.letter_weights
        return 0.0 if self.sparse(progress) else high + (low - high) * min(progress / self.letter_share, 1.0)

    def reads(self, progress: float, step: int) -> bool:
        """Whether this step has reader samples."""
        if self.sparse(progress):
            return False
        return progress < self.reader_share or step % self.reader_every == 0

    def rate(self, progress: float, step: int) -> float:
        """Learning rate: warm-up in steps, then a cosine in time for each stage."""
        if self.sparse(progress):
            high, low, share = (
                self.dense_end_rate,
                self.end_rate,
                (progress - self.dense_share) / (1 - self.dense_share),
            )
        else:
            high, low, share = 1.0, self.dense_end_rate, progress / self.dense_share
        factor = low + (high - low) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
        return self.peak_rate * factor * min(1.0, (step + 1) / self.warm_up_steps)
