"""A board video as data: one look, texts that change over time, and the scene at any moment."""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from keyeloop.tools.demo_video.glyphs import GlyphAtlas
from keyeloop.tools.demo_video.sampling import sample_scene
from keyeloop.tools.demo_video.scene import Scene
from keyeloop.tools.demo_video.words import number, word

Kind = Literal["number", "word", "empty"]


@dataclass(frozen=True)
class Shot:
    """What is shown from ``start_s`` until the next shot."""

    start_s: float
    board: str
    """Empty when the board is blank."""
    sign: str | None
    """None when there is no small sign; its text otherwise."""

    @property
    def kind(self) -> Kind:
        """What the board shows."""
        return "empty" if not self.board else "number" if self.board.isdigit() else "word"


@dataclass(frozen=True)
class BoardVideo:
    """A video of 1280 x 720 pixels: frames lie at whole multiples of ``1 / fps`` seconds from zero."""

    look: Scene
    shots: tuple[Shot, ...]
    duration_s: float
    fps: float

    @cached_property
    def _starts(self) -> list[float]:
        return [shot.start_s for shot in self.shots]

    def frame_time(self, time_s: float) -> float:
        """Presentation time of the frame on screen at ``time_s``."""
        last = math.ceil(self.duration_s * self.fps - 1e-6) - 1
        return min(max(math.floor(time_s * self.fps + 1e-6), 0), last) / self.fps

    def shot_at(self, time_s: float) -> Shot:
        """The shot on screen at ``time_s``."""
        return self.shots[max(bisect_right(self._starts, self.frame_time(time_s) + 1e-6) - 1, 0)]

    def end_of(self, shot: Shot) -> float:
        """When the next shot begins, in seconds."""
        index = self.shots.index(shot) + 1
        return self.shots[index].start_s if index < len(self.shots) else self.duration_s

    def scene_at(self, time_s: float) -> Scene:
        """The scene on screen at ``time_s``."""
        shot = self.shot_at(time_s)
        if shot.sign is None:
            return replace(self.look.with_texts(shot.board), signs=())
        return self.look.with_texts(shot.board, (shot.sign,))


def sample_video(
    rng: random.Random,
    atlas: GlyphAtlas,
    *,
    heldout: bool = False,
    difficulty: float = 1.0,
    duration_s: float | None = None,
    shots: int | None = None,
    signs: bool | None = None,
) -> BoardVideo:
    """Draw a video: a look with fonts of ``atlas``, and shots of numbers, words and blanks.

    ``heldout`` takes the fonts and backgrounds kept for evaluation. ``signs`` true puts a small sign into most shots.
    """
    length_s = duration_s or float(round(math.exp(rng.uniform(math.log(20), math.log(4000)))))
    count = shots or max(3, min(24, int(length_s / 5)))
    with_sign = rng.random() < 0.5 if signs is None else signs
    cuts = _cuts(rng, length_s, count)
    texts = [_shot(rng, start_s, with_sign) for start_s in cuts]
    boards = [shot.board for shot in texts]
    signs_shown = [shot.sign for shot in texts if shot.sign] or ["0000"]
    look = sample_scene(rng, atlas, boards, (signs_shown,) if with_sign else (), heldout=heldout, difficulty=difficulty)
    return BoardVideo(look, tuple(texts), length_s, rng.choice((5.0, 10.0, 24.0, 25.0, 25.0, 30.0)))


def _cuts(rng: random.Random, length_s: float, count: int) -> list[float]:
    step = length_s / count
    return [0.0] + [round(step * (index + rng.uniform(-0.35, 0.35)), 1) for index in range(1, count)]


def _shot(rng: random.Random, start_s: float, with_sign: bool) -> Shot:
    kind = rng.choices(("number", "word", "empty"), (6, 4, 1.5))[0]
    board = number(rng) if kind == "number" else word(rng) if kind == "word" else ""
    sign = None
    if with_sign and rng.random() < 0.8:
        sign = number(rng) if rng.random() < 0.5 else word(rng)
    return Shot(start_s, board, sign)
