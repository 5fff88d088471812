"""Train keye-tiny for a given number of minutes.

    python -m training.keye_tiny.train --minutes 9.5 --span 0:0.5 --out $OUT --state /tmp/ck
    python -m training.keye_tiny.train --minutes 9.5 --span 0.5:1 --out $OUT --state /tmp/ck --resume

``--span`` is the part of the whole schedule that this call covers. Under ``torchrun`` every rank has its own workers
and seeds. Weights go to ``--out`` in pieces of at most 16 MiB, everything needed to resume to ``--state``; both are
written at the end of the time, and on SIGTERM.
"""

from __future__ import annotations

import time

BEGAN = time.monotonic()

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
from collections.abc import Callable, Sequence  # noqa: E402
from dataclasses import asdict, replace  # noqa: E402
from functools import partial  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402

from training.keye_tiny.batch import Loader, Render  # noqa: E402
from training.keye_tiny.feed import Feeder, Prefetch, worker_count  # noqa: E402
from training.keye_tiny.learn import Learner  # noqa: E402
from training.keye_tiny.model import KeyeTiny  # noqa: E402
from training.keye_tiny.pieces import save_pieces  # noqa: E402
from training.keye_tiny.recipe import Recipe  # noqa: E402
from training.keye_tiny.shape import TinyShape  # noqa: E402
from training.keye_tiny.supply import Source  # noqa: E402


class Run:
    """A training run of one rank."""

    def __init__(
        self,
        shape: TinyShape,
        recipe: Recipe,
        open_source: Callable[[], Source],
        open_render: Callable[[torch.device], Render],
        families: Sequence[str],
        options: argparse.Namespace,
    ) -> None:
        self.recipe, self.options, self.families = recipe, options, families
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.device = torch.device("cpu")
        if torch.cuda.is_available():
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
            torch.cuda.set_device(self.device)
        workers = worker_count(self.world) if options.workers < 0 else options.workers
        self.feeder = Feeder(
            open_source,
            recipe.buckets,
            workers=workers,
            seed=options.seed * 64 + self.rank * 8 + round(8 * options.span[0]),
            pin=self.device.type == "cuda",
            real_share=recipe.real_share,
        )
        if self.world > 1:
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
        torch.manual_seed(options.seed)
        self.model = KeyeTiny(shape).to(self.device)
        self.learner = Learner(self.model, recipe, len(families), compiled=self.device.type == "cuda")
        self.prefetch = Prefetch(
            self.feeder, Loader(shape, recipe.buckets, self.device, open_render(self.device)), self.device
        )
        self.step, self.progress = 0, options.span[0]
        self._stopped = False
        if options.resume:
            self._restore()
        torch.manual_seed(options.seed * 64 + self.rank + self.step)
        signal.signal(signal.SIGTERM, self._on_term)

    def _on_term(self, *_: Any) -> None:
        self._stopped = True

    def say(self, text: str) -> None:
        """Print on the first rank."""
        if self.rank == 0:
            print(f"[{time.monotonic() - BEGAN:6.1f} s] {text}", flush=True)

    def train(self) -> None:
        """Train until the time is up, then save."""
        low, high = self.options.span
        self.feeder.set_difficulty(self.recipe.difficulty(low))
        self._compile(low, high)
        began, end = time.monotonic(), BEGAN + self.options.minutes * 60 - self.options.reserve_s
        if end <= began:
            raise SystemExit("no time left after compiling; raise --minutes")
        self._printed, self._tokens, self._steps = time.monotonic(), 0, 0
        try:
            while self.progress < high and not (self._stopped and self.world == 1):
                share = (time.monotonic() - began) / (end - began)
                if self.options.steps and self.step >= self.options.steps:
                    break
                if self._stopped:
                    share = 1e3
                self._one_step(low + (high - low) * share)
                if time.monotonic() - self._printed > self.recipe.print_every_s:
                    self._report()
            self._report()
        finally:
            self.save()
            self.prefetch.close()
            self.feeder.close()

    def _compile(self, low: float, high: float) -> None:
        if self.device.type != "cuda" and not self.options.warm:
            return
        modes = [False] * (low < self.recipe.dense_share) + [True] * (high > self.recipe.dense_share)
        for sparse in modes:
            self.learner.warm_up(sparse=sparse, readers=not sparse)
            self.say(f"compiled {'sparse' if sparse else 'dense'} shapes")

    def _one_step(self, progress: float) -> None:
        recipe, sparse = self.recipe, self.recipe.sparse(self.progress)
        self.feeder.set_difficulty(recipe.difficulty(self.progress))
        micros = [self.prefetch.take(False) for _ in range(recipe.main_shards)]
        tokens, rows = sum(len(micro.loss_to) for micro in micros), sum(len(micro.ids) for micro in micros)
        for micro in micros:
            self.learner.backward(micro, tokens, len(micro.ids) / rows, sparse=sparse)
        if recipe.reads(self.progress, self.step):
            readers = [self.prefetch.take(True) for _ in range(recipe.reader_shards)]
            tokens = sum(len(micro.loss_to) for micro in readers)
            for micro in readers:
                self.learner.backward(micro, tokens, 0.25 / len(readers), sparse=sparse)
            micros += readers
        self.progress = self.learner.update(max(progress, self.progress), self.step)
        self.step += 1
        self._steps += 1
        self._tokens += sum(micro.ids.numel() for micro in micros)

    def _report(self) -> None:
        counts, sums = self.learner.counts.cpu(), self.learner.layer_sums.cpu()
        now = time.monotonic()
        spent = max(now - self._printed, 1e-6)
        parts = [
            f"step {self.step} at {self.progress:.3f} {'sparse' if self.recipe.sparse(self.progress) else 'dense'}",
            f"{self._tokens * self.world / spent / 1e3:.0f}k tok/s {self._steps / spent:.2f} steps/s",
            f"wait {(self.prefetch.waited_s or self.feeder.waited_s) / spent:.0%}",
            f"again {self.feeder.reused / max(self.feeder.taken, 1):.0%}",
            f"lr {self.recipe.rate(self.progress, self.step):.1e}",
        ]
        if sums[3] > 0:
            kl, balance, mass = (sums[:3] / sums[3]).tolist()
            parts.append(f"kl {kl:.3f} balance {balance:.2f} mass {mass:.2f} norm {sums[4] / max(self._steps, 1):.2f}")
        if self.device.type == "cuda":
            parts.append(f"{torch.cuda.max_memory_allocated() / 2**30:.0f} GiB")
        self.say(" | ".join(parts))
        cells: list[str] = []
        for reader in (0, 1):
            for name, row in zip(self.families, counts[reader].tolist(), strict=True):
                if row[0]:
                    label = ("reader:" if reader else "") + name
                    cells.append(
                        f"{label} {row[1] / max(row[2], 1):.3f} call {row[3] / row[0]:.0%} ans {row[4] / row[0]:.0%}"
                    )
        self.say("    " + " | ".join(cells))
        self.learner.counts.zero_()
        self.learner.layer_sums.zero_()
        self._printed, self._tokens, self._steps = now, 0, 0
        self.prefetch.waited_s = 0.0
        self.feeder.waited_s, self.feeder.taken, self.feeder.reused = 0.0, 0, 0

    def save(self) -> None:
        """Weights to ``--out``, the whole state to ``--state``."""
        if self.rank != 0:
            return
        out, state = Path(self.options.out), Path(self.options.state)
        out.mkdir(parents=True, exist_ok=True)
        state.mkdir(parents=True, exist_ok=True)
        names = save_pieces({name: value.to(torch.bfloat16) for name, value in self.model.state_dict().items()}, out)
        facts = {"step": self.step, "progress": self.progress, "recipe": asdict(self.recipe), "pieces": names}
        (out / "train.json").write_text(json.dumps(facts, indent=1))
        whole = {
            "model": self.model.state_dict(),
            "optimiser": self.learner.optimiser.state_dict(),
            "step": self.step,
            "progress": self.progress,
        }
        torch.save(whole, state / "state.new")
        (state / "state.new").replace(state / "state.pt")
        self.say(f"saved step {self.step} at {self.progress:.3f}: {', '.join(names)} and {state / 'state.pt'}")

    def _restore(self) -> None:
        found = torch.load(Path(self.options.state) / "state.pt", map_location=self.device, weights_only=True)
        self.model.load_state_dict(found["model"])
        self.learner.optimiser.load_state_dict(found["optimiser"])
        self.step = int(found["step"])
        self.say(f"resumed step {self.step} at {found['progress']:.3f}")


def options_from(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--minutes", type=float, required=True, help="wall time of this call, start and saving included"
    )
    parser.add_argument("--span", type=_span, default=(0.0, 1.0), help="part of the schedule, as FROM:TO")
    parser.add_argument("--out", required=True, help="folder for the weights")
    parser.add_argument("--atlas", type=Path, help="glyph atlas of the training fonts; by default the bundled one")
    parser.add_argument("--state", default="/tmp/ck", help="folder for the state to resume from")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--workers", type=int, default=-1, help="data workers a rank; -1: by cores; 0: in this process")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=0, help="stop at this step; 0: by time only")
    parser.add_argument("--reserve-s", type=float, default=12.0, help="seconds kept for saving")
    parser.add_argument("--dense-share", type=float, default=Recipe.dense_share)
    parser.add_argument("--peak-rate", type=float, default=Recipe.peak_rate)
    parser.add_argument("--real-share", type=float, default=Recipe.real_share, help="0 where PyAV is not installed")
    parser.add_argument("--warm", action="store_true", help="warm up on a CPU too")
    return parser.parse_args(arguments)


def _span(text: str) -> tuple[float, float]:
    low, high = (float(part) for part in text.split(":"))
    if not 0 <= low < high <= 1:
        raise argparse.ArgumentTypeError("wants FROM:TO with 0 <= FROM < TO <= 1")
    return low, high


def main() -> None:
    from training.keye_tiny.boards import bundled_atlas, open_render
    from training.keye_tiny.source import BoardSource, opener

    options = options_from()
    recipe = replace(
        Recipe(), dense_share=options.dense_share, peak_rate=options.peak_rate, real_share=options.real_share
    )
    atlas = options.atlas or bundled_atlas()
    run = Run(TinyShape(), recipe, opener(atlas), partial(open_render, atlas), tuple(BoardSource.families), options)
    run.train()
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
