"""What a training run prints: rates, losses and shares right since the last time."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from training.keye_tiny.feed import Feeder, Prefetch
from training.keye_tiny.learn import COLUMNS, Learner


class Ledger:
    """Counts between two reports."""

    def __init__(self, families: Sequence[str]) -> None:
        self.families = families
        self.tokens = self.steps = 0
        self.began_s = time.monotonic()
        self.exact: float | None = None
        """Share of the readers' readings that were exact between the last two reports."""

    def lines(
        self, head: str, rate: float, learner: Learner, feeder: Feeder, prefetch: Prefetch, world: int
    ) -> list[str]:
        """The report; starts counting anew."""
        counts, sums, letters = learner.counts.cpu(), learner.layer_sums.cpu(), learner.letter_sums.cpu()
        now = time.monotonic()
        spent = max(now - self.began_s, 1e-6)
        parts = [
            head,
            f"{self.tokens * world / spent / 1e3:.0f}k tok/s {self.steps / spent:.2f} steps/s",
            f"wait {(prefetch.waited_s or feeder.waited_s) / spent:.0%} loading {prefetch.render_s / spent:.0%}",
            f"again {feeder.reused / max(feeder.taken, 1):.0%} failed {feeder.failed}",
            f"lr {rate:.1e}",
        ]
        if sums[3] > 0:
            kl, balance, mass = (sums[:3] / sums[3]).tolist()
            norm = float(sums[4]) / max(self.steps, 1)
            parts.append(f"kl {kl:.3f} balance {balance:.2f} mass {mass:.2f} norm {norm:.2f}")
        if letters[1] > 0:
            named = float(letters[2]) / max(float(letters[3]), 1.0)
            parts.append(f"letters {float(letters[0] / letters[1]):.2f} named {named:.0%}")
        if learner.device.type == "cuda":
            parts.append(f"{torch.cuda.max_memory_allocated() / 2**30:.0f} GiB")
        cells = [
            _cell(("reader:" if reader else "") + name, dict(zip(COLUMNS, row, strict=True)))
            for reader in (0, 1)
            for name, row in zip(self.families, counts[reader].tolist(), strict=True)
            if row[0]
        ]
        readings, rows = counts[1].sum(0)[[COLUMNS.index("readings right"), COLUMNS.index("rows that read")]].tolist()
        self.exact = readings / rows if rows else None
        learner.counts.zero_()
        learner.layer_sums.zero_()
        learner.letter_sums.zero_()
        self.tokens = self.steps = 0
        self.began_s = now
        prefetch.waited_s = prefetch.render_s = 0.0
        feeder.waited_s, feeder.taken, feeder.reused = 0.0, 0, 0
        return [" | ".join(parts), "    " + " | ".join(cells)]


def _cell(name: str, row: dict[str, float]) -> str:
    text = f"{name} {row['loss'] / max(row['tokens'], 1):.3f}"
    if row["reading tokens"]:
        read = row["reading loss"] / row["reading tokens"]
        text += f" reads {read:.2f} exact {row['readings right'] / max(row['rows that read'], 1):.0%}"
    if row["box tokens"]:
        text += f" box {row['box loss'] / row['box tokens']:.2f}"
    return f"{text} call {row['calls right'] / row['rows']:.0%} ans {row['answers right'] / row['rows']:.0%}"
