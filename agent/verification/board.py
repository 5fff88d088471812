"""The video that a server is asked about: numbers on a board, each moment asked for shown for 0.8 s only."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from keyeloop.runtime.evidence import Region
from keyeloop.runtime.picture import Pixels
from keyeloop.tools.demo_video.glyphs import GlyphAtlas
from keyeloop.tools.demo_video.paint import paint
from keyeloop.tools.demo_video.record import encode
from keyeloop.tools.demo_video.sampling import sample_scene
from keyeloop.tools.demo_video.scene import Scene, text_region
from keyeloop.tools.demo_video.timeline import BoardVideo, Shot

SEED = 5
ASKED_S = (4.0, 10.0, 16.0)
SHOWN_S = 0.4
"""On either side of a moment that is asked for: whoever looks half a second off reads another number."""
DURATION_S, FPS = 20.0, 5.0
MOST_ALIKE = 0.25
"""Overlap of the number's box with the box whose sides are swapped, at most."""


@dataclass(frozen=True)
class Asked:
    """A question about the video. ``answer`` stands on the board at ``time_s``."""

    text: str
    answer: str
    time_s: float


class ProbeVideo:
    """A board video whose every number is drawn anew from its seed, large and plain, and off the middle."""

    def __init__(self, seed: int = SEED) -> None:
        self.atlas = GlyphAtlas.bundled()
        rng = random.Random(seed)
        numbers = [str(number) for number in rng.sample(range(100, 1000), 2 * len(ASKED_S) + 1)]
        starts = [0.0, *(start for at in ASKED_S for start in (at - SHOWN_S, at + SHOWN_S))]
        self.video = BoardVideo(
            self._look(rng, numbers),
            tuple(Shot(start, number, None) for start, number in zip(starts, numbers, strict=True)),
            DURATION_S,
            FPS,
        )

    def _look(self, rng: random.Random, numbers: list[str]) -> Scene:
        while True:
            look = sample_scene(rng, self.atlas, numbers, difficulty=0.0)
            box = text_region(look, self.atlas)
            swapped = Region(
                box.y0 * look.width / look.height, box.x0 * look.height / look.width,
                box.y1 * look.width / look.height, box.x1 * look.height / look.width,
            )  # fmt: skip
            if box.iou(swapped) < MOST_ALIKE:
                return look

    def write(self, path: Path) -> None:
        """Encode it as an ``.mp4`` file of 1280 x 720 pixels. Raises as PyAV does where it cannot be written."""
        encode(self.video, self.atlas, path)

    @property
    def asked(self) -> tuple[Asked, ...]:
        """Questions with their answers."""
        return tuple(
            Asked(f"What number is on the board at {at:.0f} s?", self.video.shot_at(at).board, at) for at in ASKED_S
        )

    def frame(self, time_s: float) -> Pixels:
        """The picture on screen at a moment: [720, 1280, 3] uint8, RGB."""
        return paint(self.video.scene_at(time_s), self.atlas)

    def number_region(self, time_s: float) -> Region:
        """Where the number stands at a moment, in source pixels."""
        return text_region(self.video.scene_at(time_s), self.atlas)
