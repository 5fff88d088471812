"""Rehearse on a CPU, in a small setting, that reading breaks through: the real learner, small pictures and network.

    python -m training.keye_tiny.rehearse --minutes 8 --letters 1 --reading 4 --box 0.25

Readers alone, or with ``--trajectories`` whole runs too. It prints loss and exact readings of fresh samples.
"""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from keyeloop.runtime.evidence import Region
from keyeloop.tools.demo_video.glyphs import GlyphAtlas
from keyeloop.tools.demo_video.sampling import sample_scene
from keyeloop.tools.demo_video.scene import Scene, text_region
from keyeloop.tools.demo_video.words import word
from training.keye_tiny.batch import Loader
from training.keye_tiny.boards import bundled_atlas
from training.keye_tiny.learn import COLUMNS, Learner
from training.keye_tiny.model import KeyeTiny
from training.keye_tiny.readers import board_sample
from training.keye_tiny.recipe import Recipe
from training.keye_tiny.render import BatchRenderer
from training.keye_tiny.sample import Sample
from training.keye_tiny.shape import TinyShape
from training.keye_tiny.source import BoardSource
from training.keye_tiny.supply import Buckets, Stock

SHAPE = TinyShape(
    hidden=96, layers=3, heads=3, kv_heads=1, experts=4, expert_width=64, index_heads=1, index_dim=32, topk=16,
    vision_layers=3, vision_width=96, vision_heads=3, vision_ffn=192,
)  # fmt: skip
PICTURE = (140, 84)


class SmallSource(BoardSource):
    """Boards with short numbers and words, seen through a window of the frame that is shown small."""

    def __init__(self, atlas: GlyphAtlas, digits: int, fonts: int, words: float) -> None:
        super().__init__(atlas)
        self._digits, self._fonts, self._words = digits, atlas.choose(heldout=False)[:fonts], words

    def make_reader(self, rng: random.Random, difficulty: float) -> Sample:
        text = "".join(rng.choices("0123456789", k=rng.randint(1, self._digits)))
        if rng.random() < self._words:
            text = word(rng)[: self._digits]
        scene = sample_scene(rng, self.atlas, text, fonts=self._fonts, difficulty=0.0)
        return board_sample(scene, self._window(rng, scene), PICTURE, text, self.atlas)

    def _window(self, rng: random.Random, scene: Scene) -> Region:
        ink = text_region(scene, self.atlas)
        wide = max(ink.width * rng.uniform(1.15, 1.6), ink.height * rng.uniform(2.4, 3.4))
        high = wide * PICTURE[1] / PICTURE[0]
        if wide > scene.width or high > scene.height:
            return Region(0, 0, scene.width, scene.height)
        x0 = min(max(rng.uniform(ink.x1 + 8 - wide, ink.x0 - 8), 0), scene.width - wide)
        y0 = min(max(rng.uniform(ink.y1 + 8 - high, ink.y0 - 8), 0), scene.height - high)
        return Region(x0, y0, x0 + wide, y0 + high)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--letters", type=float, default=1.0, help="weight of naming letters")
    parser.add_argument("--reading", type=float, default=4.0, help="weight of a reading's tokens")
    parser.add_argument("--box", type=float, default=0.25, help="weight of a box's digits")
    parser.add_argument("--rows", type=int, default=64, help="readers a step")
    parser.add_argument("--trajectories", type=int, default=0, help="whole runs a step beside the readers")
    parser.add_argument("--digits", type=int, default=3, help="most letters of a text")
    parser.add_argument("--words", type=float, default=0.0, help="share of words among the numbers")
    parser.add_argument("--fonts", type=int, default=4)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stop", type=float, default=0.95, help="share of exact readings to stop at")
    options = parser.parse_args(arguments)
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    buckets = Buckets(
        main=((512, options.trajectories),), reader=(60, options.rows), probes=8, frame_chunk=4,
        mixed_chunk=16 if options.trajectories else options.rows, mixed_tokens=64 if options.trajectories else 15,
    )  # fmt: skip
    recipe = replace(
        Recipe(), buckets=buckets, peak_rate=options.rate, warm_up_steps=30, reading_weight=options.reading,
        box_weights=(options.box, options.box), letter_weights=(options.letters, options.letters), dense_end_rate=1.0,
    )  # fmt: skip
    atlas = GlyphAtlas.load(Path(bundled_atlas()))
    stock = Stock(SmallSource(atlas, options.digits, options.fonts, options.words), buckets, options.seed)
    renderer = BatchRenderer(atlas, "cpu")
    loader = Loader(SHAPE, buckets, torch.device("cpu"), lambda p, h, w: renderer.render(p, h, w, degrade=False))
    learner = Learner(KeyeTiny(SHAPE), recipe, len(BoardSource.families), compiled=False)
    began, steps, half = time.monotonic(), 0, None
    while time.monotonic() - began < options.minutes * 60:
        shards = [stock.reader(0.0)] + ([stock.main(0.0)] if options.trajectories else [])
        learner.backward(loader.load(shards), 0.0, sparse=False)
        learner.update(0.0, steps)
        steps += 1
        if steps % 50 == 0:
            exact = _report(learner, steps, time.monotonic() - began)
            half = half or (steps if exact >= 0.5 else None)
            if exact >= options.stop:
                break
    print(f"{vars(options)}: half of the readings exact by step {half}, {steps} steps", flush=True)


def _report(learner: Learner, steps: int, spent_s: float) -> float:
    row: dict[str, Any] = dict(zip(COLUMNS, learner.counts[1].sum(0).tolist(), strict=True))
    main: dict[str, Any] = dict(zip(COLUMNS, learner.counts[0].sum(0).tolist(), strict=True))
    letters = learner.letter_sums.tolist()
    exact = row["readings right"] / row["rows that read"]
    print(
        f"step {steps} {spent_s:.0f} s reads {row['reading loss'] / row['reading tokens']:.2f} exact {exact:.0%} "
        f"box {row['box loss'] / max(row['box tokens'], 1):.2f} "
        f"letters {letters[0] / max(letters[1], 1):.2f} named {letters[2] / max(letters[3], 1):.0%}"
        + (
            f" trajectories {main['loss'] / main['tokens']:.3f} call {main['calls right'] / main['rows']:.0%} "
            f"reads {main['reading loss'] / max(main['reading tokens'], 1):.2f}"
            if main["rows"]
            else ""
        ),
        flush=True,
    )
    learner.forget()
    return float(exact)


if __name__ == "__main__":
    main()
