"""Board videos whose texts and cuts are given: names of things, long shots, no text twice."""

from __future__ import annotations

import random
from collections.abc import Sequence

from keyeloop.tools.demo_video.glyphs import GlyphAtlas
from keyeloop.tools.demo_video.sampling import sample_scene
from keyeloop.tools.demo_video.timeline import BoardVideo, Shot
from keyeloop.tools.demo_video.words import number, word

USUAL_S = 6.0
"""Mean length of a shot of ``demo-video``."""
RATES = (5.0, 10.0, 24.0, 25.0, 25.0, 30.0)


def draw_video(
    rng: random.Random,
    atlas: GlyphAtlas,
    shots: Sequence[Shot],
    duration_s: float,
    *,
    heldout: bool,
    difficulty: float,
) -> BoardVideo:
    """A video of given shots in a look that fits all of them; it ends with a whole frame."""
    rate = rng.choice(RATES)
    signs = [shot.sign for shot in shots if shot.sign]
    look = sample_scene(
        rng, atlas, [shot.board for shot in shots], (signs,) if signs else (), heldout=heldout, difficulty=difficulty
    )
    return BoardVideo(look, tuple(shots), round(duration_s * rate) / rate, rate)


def draw_cuts(rng: random.Random, duration_s: float, count: int, shortest_s: float) -> list[float]:
    """When ``count`` shots of at least ``shortest_s`` begin, in tenths of a second. They must fit."""
    spare = duration_s - count * shortest_s
    shares = sorted(rng.uniform(0, spare) for _ in range(count - 1))
    cuts = [0.0, *(shortest_s * place + share for place, share in enumerate(shares, 1))]
    return [round(cut - 0.049, 1) if cut else 0.0 for cut in cuts]


def demo_cuts(rng: random.Random, duration_s: float) -> list[float]:
    """When shots begin that are cut as ``demo-video`` cuts them: a new one about every 6 s."""
    count = max(3, round(duration_s / USUAL_S))
    step = duration_s / count
    return [0.0] + [round(step * (index + rng.uniform(-0.35, 0.35)), 1) for index in range(1, count)]


def draw_text(rng: random.Random, taken: Sequence[str], *, blank: float = 0.12) -> str:
    """A number, a word or nothing that is not among ``taken``, in whatever letters."""
    while True:
        text = "" if rng.random() < blank else number(rng) if rng.random() < 0.6 else word(rng)
        if text.casefold() not in {other.casefold() for other in taken}:
            return text
