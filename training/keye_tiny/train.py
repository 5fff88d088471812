"""Train keye-tiny for a given number of minutes.

    python -m training.keye_tiny.train --minutes 25 --out RUN --state /tmp/ck --profile --sheet
    python -m training.keye_tiny.train --minutes 12 --out RUN --state /tmp/ck --resume

``--span`` is the part of the whole schedule that this call covers; a resumed run goes on where it stood. Under
``torchrun`` every rank has its own workers and seeds. Weights go to ``--out`` in pieces of at most 16 MiB, everything
needed to resume to ``--state``; both are written every two minutes, at the end of the time, and on SIGTERM.
"""

from __future__ import annotations

import time

BEGAN = time.monotonic()

import argparse  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable, Sequence  # noqa: E402
from dataclasses import replace  # noqa: E402
from functools import partial  # noqa: E402
from importlib.util import find_spec  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402

from keyeloop.model_backend.keye.weights import load_folder  # noqa: E402
from training.keye_tiny.batch import Loader, Render  # noqa: E402
from training.keye_tiny.feed import Feeder, Prefetch, worker_count  # noqa: E402
from training.keye_tiny.learn import Learner  # noqa: E402
from training.keye_tiny.ledger import Ledger  # noqa: E402
from training.keye_tiny.model import KeyeTiny  # noqa: E402
from training.keye_tiny.profile import profile  # noqa: E402
from training.keye_tiny.recipe import Recipe  # noqa: E402
from training.keye_tiny.saving import restore, save  # noqa: E402
from training.keye_tiny.shape import TinyShape  # noqa: E402
from training.keye_tiny.sheet import save_sheet  # noqa: E402
from training.keye_tiny.supply import Source, small  # noqa: E402
from training.keye_tiny.watch import Watch  # noqa: E402

SWITCH_S = 5e-4
"""How long the thread that loads may keep the interpreter from the one that drives the device."""


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
        self.recipe, self.options = recipe, options
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.device = torch.device("cpu")
        if torch.cuda.is_available():
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
            torch.cuda.set_device(self.device)
            sys.setswitchinterval(SWITCH_S)
        workers = worker_count(self.world) if options.workers < 0 else options.workers
        self.feeder = Feeder(
            open_source,
            recipe.buckets,
            workers=workers,
            seed=options.seed * 64 + self.rank * 8 + (os.getpid() * 1024 if options.resume else 0),
            pin=self.device.type == "cuda",
            real_share=recipe.real_share,
        )
        if self.world > 1:
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
        torch.manual_seed(options.seed)
        self.model = KeyeTiny(shape).to(self.device)
        if options.start_from:
            self.model.load_state_dict(load_folder(options.start_from).state_dict())
        if options.frozen_vision:
            for part in (self.model.visual, self.model.mlp_AR):
                part.requires_grad_(False)
        self.learner = Learner(
            self.model,
            recipe,
            len(families),
            compiled=self.device.type == "cuda",
            bfloat16=options.bfloat16 or None,
        )
        self.loader = Loader(shape, recipe.buckets, self.device, open_render(self.device))
        self.prefetch = Prefetch(self.feeder, self.loader, self.device)
        self.ledger = Ledger(families)
        self.step, self.progress = 0, options.span[0]
        self.difficulty = recipe.difficulty(self.progress)
        self._first = 0
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
        """Train until the time is up, saving now and then and at the end."""
        low, high = self.progress, self.options.span[1]
        self.difficulty = self.recipe.difficulty(low)
        self.feeder.set_difficulty(self.difficulty)
        watch = Watch()
        try:
            self._compile(low, high)
            if self.rank == 0:
                self._show()
            self.prefetch.start(self._kinds)
            began, end = time.monotonic(), BEGAN + self.options.minutes * 60 - self.options.reserve_s
            if end <= began:
                raise SystemExit("no time left after compiling; raise --minutes")
            saved = self.ledger.began_s = time.monotonic()
            while self.progress < high and not (self._stopped and self.world == 1):
                share = (time.monotonic() - began) / (end - began)
                if self.options.steps and self.step >= self.options.steps:
                    break
                self._one_step(low + (high - low) * (share if not self._stopped else 1e3))
                watch.beat()
                if time.monotonic() - self.ledger.began_s > self.recipe.print_every_s:
                    self._report()
                if time.monotonic() - saved > self.options.save_every_s:
                    self.save()
                    saved = time.monotonic()
            self._report()
        finally:
            self.save()
            watch.close()
            self.prefetch.close()
            self.feeder.close()

    def _kinds(self, index: int) -> tuple[bool, ...]:
        """Which shards of a step are of readers; asked ahead of the step."""
        readers = self.recipe.reader_shards if self.recipe.reads(self.progress, index) else 0
        return (False,) * self.recipe.main_shards + (True,) * readers

    def _compile(self, low: float, high: float) -> None:
        if self.device.type != "cuda" and not self.options.warm:
            return
        modes = [False] * (low < self.recipe.dense_share) + [True] * (high > self.recipe.dense_share)
        for sparse in modes:
            self.learner.warm_up(sparse=sparse, readers=not sparse)
            self.say(f"compiled {'sparse' if sparse else 'dense'} shapes")

    def _show(self) -> None:
        """Look before training: pictures with what they say and, on request, where a step's time goes."""
        if self.options.sheet:
            step = self.loader.load([self.feeder.take(True)])
            save_sheet(step.micros[0], step.passes, Path(self.options.out))
            self.say(f"pictures and what they say: {self.options.out}/pictures.png and .txt")
        if self.options.profile:
            for line in profile(self.learner, self.loader, self.feeder, self.recipe):
                self.say(line)

    def _one_step(self, progress: float) -> None:
        sparse = self.recipe.sparse(self.progress)
        step = self.prefetch.take()
        if sparse and any(micro.reader for micro in step.micros):
            step = replace(step, micros=tuple(micro for micro in step.micros if not micro.reader))
        self.learner.backward(step, self.progress, sparse=sparse)
        before = self.progress
        self.progress = max(self.learner.update(max(progress, self.progress), self.step - self._first), before)
        self.difficulty = self.recipe.harder(self.difficulty, self.progress - before, self.progress, self.ledger.exact)
        self.feeder.set_difficulty(self.difficulty)
        self.step += 1
        self.ledger.steps += 1
        self.ledger.tokens += sum(micro.ids.numel() for micro in step.micros)

    def _report(self) -> None:
        recipe = self.recipe
        mode = "sparse" if recipe.sparse(self.progress) else "dense"
        head = f"step {self.step} at {self.progress:.3f} {mode} difficulty {self.difficulty:.2f}"
        rate = recipe.rate(self.progress, self.step - self._first)
        for line in self.ledger.lines(head, rate, self.learner, self.feeder, self.prefetch, self.world):
            self.say(line)

    def save(self) -> None:
        """Weights to ``--out``, the whole state to ``--state``; the first rank alone."""
        if self.rank != 0:
            return
        started = time.monotonic()
        names = save(self.learner, Path(self.options.out), Path(self.options.state), self.step, self.progress)
        took_s = time.monotonic() - started
        self.say(f"saved step {self.step} at {self.progress:.3f} in {took_s:.1f} s: {', '.join(names)}")

    def _restore(self) -> None:
        place = restore(self.learner, Path(self.options.out), Path(self.options.state))
        self.step = place.step
        self._first = 0 if place.whole else place.step
        self.progress = min(max(place.progress, self.options.span[0]), self.options.span[1])
        what = "weights and optimiser" if place.whole else "weights alone"
        self.say(f"resumed step {self.step} at {place.progress:.3f}: {what}")


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
    parser.add_argument("--start-from", type=Path, metavar="FOLDER", help="begin with the weights of an exported model")
    parser.add_argument("--workers", type=int, default=-1, help="data workers a rank; -1: by cores; 0: in this process")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=0, help="stop at this step; 0: by time only")
    parser.add_argument("--reserve-s", type=float, default=5.0, help="seconds kept for saving")
    parser.add_argument("--save-every-s", type=float, default=120.0)
    parser.add_argument("--profile", action="store_true", help="first print where a step's time goes")
    parser.add_argument("--sheet", action="store_true", help="first save a sheet of pictures with what they say")
    parser.add_argument("--dense-share", type=float, default=Recipe.dense_share)
    parser.add_argument("--peak-rate", type=float, default=Recipe.peak_rate)
    parser.add_argument("--real-share", type=float, default=Recipe.real_share, help="0 where PyAV is not installed")
    parser.add_argument("--rows", type=int, default=0, help="rows a step; 0: as many as an H200 likes")
    parser.add_argument(
        "--token-weights",
        type=float,
        nargs=3,
        metavar=("READING", "BOX", "DECISION"),
        help="constant weights in the loss",
    )
    parser.add_argument("--warm-up", type=int, default=Recipe.warm_up_steps, help="steps of rising learning rate")
    parser.add_argument("--frozen-vision", action="store_true", help="learn the decoder alone")
    parser.add_argument("--bfloat16", action="store_true", help="products in bfloat16 on a CPU too")
    parser.add_argument("--warm", action="store_true", help="warm up on a CPU too")
    parser.add_argument(
        "--second-lesson", action="store_true", help="teach look_up, when and whole too, in rows of up to 2048 tokens"
    )
    return parser.parse_args(arguments)


def _span(text: str) -> tuple[float, float]:
    low, high = (float(part) for part in text.split(":"))
    if not 0 <= low < high <= 1:
        raise argparse.ArgumentTypeError("wants FROM:TO with 0 <= FROM < TO <= 1")
    return low, high


def main() -> None:
    from training.keye_tiny import source
    from training.keye_tiny.boards import bundled_atlas, open_render
    from training.keye_tiny.second import source as second

    options = options_from()
    if options.real_share and not all(find_spec(name) for name in ("av", "cv2")):
        print("no filmed pictures: PyAV or OpenCV is not installed", flush=True)
        options.real_share = 0.0
    recipe = replace(
        Recipe(), dense_share=options.dense_share, peak_rate=options.peak_rate, real_share=options.real_share
    )
    recipe = replace(recipe, warm_up_steps=options.warm_up)
    if options.token_weights:
        reading, box, decision = options.token_weights
        recipe = replace(recipe, reading_weight=reading, box_weights=(box, box), decision_weight=decision)
    if options.rows:
        recipe = replace(recipe, buckets=small(options.rows))
    atlas, opener, families = options.atlas or bundled_atlas(), source.opener, source.BoardSource.families
    if options.second_lesson:
        opener, families = second.opener, second.SecondSource.families
        recipe = replace(recipe, buckets=second.longer(recipe.buckets))
    run = Run(TinyShape(), recipe, opener(atlas), partial(open_render, atlas), tuple(families), options)
    run.train()
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
