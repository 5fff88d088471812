"""The families of the second lesson by name, for the trainer and the evaluation."""

from __future__ import annotations

import random
from collections.abc import Mapping

from keyeloop.tools.demo_video.glyphs import GlyphAtlas
from training.keye_tiny.sample import Sample
from training.keye_tiny.second.episode import Lesson
from training.keye_tiny.second.look_up import LookUp
from training.keye_tiny.second.when import When
from training.keye_tiny.second.whole import Whole
from training.keye_tiny.trajectories import FAMILIES, Episode

SECOND: Mapping[str, type[Lesson]] = {"look_up": LookUp, "when": When, "whole": Whole}
EVERY: tuple[str, ...] = (*FAMILIES, *SECOND)
"""Names of all families, those of the first lesson first."""


def open_episode(
    rng: random.Random, family: str, atlas: GlyphAtlas, *, heldout: bool = False, difficulty: float = 1.0
) -> Episode:
    """An episode of any family; one of the first lesson is exactly what ``Episode`` draws."""
    if family in SECOND:
        return SECOND[family](rng, atlas, heldout=heldout, difficulty=difficulty)
    return Episode(rng, family, atlas, heldout=heldout, difficulty=difficulty)  # type: ignore[arg-type]


def teach(
    rng: random.Random, family: str, atlas: GlyphAtlas, *, heldout: bool = False, difficulty: float = 1.0
) -> Sample:
    """A whole trajectory of the second lesson as the teacher plays it."""
    episode = SECOND[family](rng, atlas, heldout=heldout, difficulty=difficulty)
    while not episode.submit(episode.teach(), shake=True):
        pass
    return episode.sample(open_reply=False)
