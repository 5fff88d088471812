"""The trainer's supply: trajectories of all families in their shares, readers, and pictures packed for the renderer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keyeloop.tools.demo_video.glyphs import GlyphAtlas
from training.keye_tiny import packing
from training.keye_tiny.letters import letter_labels
from training.keye_tiny.readers import make_reader
from training.keye_tiny.sample import Sample, Shown
from training.keye_tiny.trajectories import FAMILIES, make

SHARES = (6, 5, 4, 2, 6)
"""How often each family is drawn, in the order of ``FAMILIES``."""


class BoardSource:
    """Draws samples of board videos with the training fonts."""

    families: Sequence[str] = (*FAMILIES, "reader")

    def __init__(self, atlas: GlyphAtlas) -> None:
        self.atlas = atlas
        self._film = random.Random()

    def make(self, rng: random.Random, difficulty: float) -> Sample:
        """A trajectory of a family drawn by its share; ``difficulty`` from 0 to 1."""
        return make(rng, rng.choices(FAMILIES, SHARES)[0], self.atlas, difficulty=difficulty)

    def make_reader(self, rng: random.Random, difficulty: float) -> Sample:
        """A short sample of one picture."""
        return make_reader(rng, self.atlas, difficulty=difficulty)

    def pack(self, shown: Shown) -> Any:
        """Numbers that the renderer needs of one picture."""
        return packing.pack(shown.scene, shown.region, self.atlas)

    def stack(self, packed: list[Any]) -> Any:
        """Packed pictures of one size as one batch."""
        return packing.stack(packed)

    def label(self, shown: Shown) -> npt.NDArray[np.int32]:
        """Which visual tokens hold which letters."""
        return letter_labels(shown, self.atlas)

    def film(self, shown: list[Shown]) -> list[npt.NDArray[np.uint8]]:
        """The same pictures through a real video file of random quality, cut and stored as the tools do it."""
        from training.keye_tiny import real_frames

        crf, preset = self._film.randint(*real_frames.CRF), self._film.choice(real_frames.PRESETS)
        decoded = real_frames.film([one.scene for one in shown], self.atlas, crf, preset, self._film.randint(1, 3))
        return [
            real_frames.see(pixels, real_frames.View(one.scene, one.region, one.width, one.height))
            for pixels, one in zip(decoded, shown, strict=True)
        ]


def open_source(atlas_path: Path) -> BoardSource:
    """The source with the atlas at ``atlas_path``; picklable through ``functools.partial`` for worker processes."""
    return BoardSource(GlyphAtlas.load(atlas_path))


def opener(atlas_path: Path) -> Any:
    """What a worker process calls to get its source."""
    return partial(open_source, atlas_path)
