"""The trainer's supply with the second lesson in it, and the longer rows that it needs."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from keyeloop.tools.demo_video.glyphs import GlyphAtlas
from training.keye_tiny.sample import Sample
from training.keye_tiny.second.lesson import EVERY, SECOND, teach
from training.keye_tiny.source import BoardSource
from training.keye_tiny.supply import Buckets

SHARE = 0.5
"""Part of the trajectories that are of the second lesson."""
SHARES = (9, 3, 3)
"""How often each of its families is drawn, in the order of ``SECOND``."""
LENGTHS = (1408, 2048)
"""Tokens of the rows that the second lesson adds; what is longer than the last is dropped."""


class SecondSource(BoardSource):
    """Draws samples of both lessons."""

    families: Sequence[str] = (*EVERY, "reader")

    def make(self, rng: random.Random, difficulty: float) -> Sample:
        """A trajectory of a family drawn by its share; ``difficulty`` from 0 to 1."""
        if rng.random() >= SHARE:
            return super().make(rng, difficulty)
        return teach(rng, rng.choices(list(SECOND), SHARES)[0], self.atlas, difficulty=difficulty)


def open_source(atlas_path: Path) -> SecondSource:
    """The source with the atlas at ``atlas_path``."""
    return SecondSource(GlyphAtlas.load(atlas_path))


def opener(atlas_path: Path) -> Any:
    """What a worker process calls to get its source."""
    return partial(open_source, atlas_path)


def longer(buckets: Buckets) -> Buckets:
    """The same shapes and those of the long rows, each with about as many tokens."""
    length, rows = max(buckets.main)
    added = ((longer, max(1, round(length * rows / longer))) for longer in LENGTHS)
    return replace(buckets, main=(*buckets.main, *added))
