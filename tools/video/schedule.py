"""Which moments of whole videos to show at once, and how large, within a budget of tokens. Pure arithmetic.

Frames come first at the model's largest size, up to two a second; then less often, down to one a second; then they
shrink, down to the model's smallest; only then are there fewer. Each video's are spread evenly from its first frame to
its last, on its own grid of frames, as Keye's reader does (``smart_nframes`` in ``keye_adaptive_video.py`` of
Kwai-Keye/sglang).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from keyeloop.runtime.visual_cost import FrameSize, VisualCost

SHRINK = 0.85
"""A model whose arithmetic gives up frames before size is asked about pictures with sides shrunk by this, again and
again, down to ``LEAST_FRAME_TOKENS``."""
LEAST_FRAME_TOKENS = 64


@dataclass(frozen=True)
class Pace:
    """How often a video is looked at."""

    most_frames: int
    """Of one video."""
    most_fps: float = math.inf
    least_fps: float = math.inf
    """Frames shrink before they come less often than this."""
    key_step_s: float = math.inf
    """Frames this far apart are key frames, which cost the decoding of one frame each."""


WHOLE = Pace(most_frames=512, most_fps=2.0, least_fps=1.0)
OVERVIEW = Pace(most_frames=12, key_step_s=10.0)


@dataclass(frozen=True)
class Film:
    """What there is to know of a video without decoding it."""

    duration_s: float
    fps: float | None
    """None where the file does not tell: its frames are then on no grid."""
    width: int
    height: int
    """Of a displayed frame, in pixels."""

    @property
    def frames(self) -> float:
        """How many frames it has; infinitely many without a grid."""
        return math.inf if self.fps is None else max(1, round(self.duration_s * self.fps))

    def wanted(self, fps: float, most_frames: int) -> int:
        """How many frames a rate asks for: two at least, where the video has them, and not more than it has."""
        return int(min(self.frames, most_frames, max(2.0, self.duration_s * fps)))


@dataclass(frozen=True)
class Schedule:
    """The moments of one video that are shown, and the size they share."""

    times_s: tuple[float, ...]
    """When these frames begin, in seconds from the first; exact for a constant frame rate. Ascending."""
    lead_s: float
    """Half a frame: the frame on screen that much later than a time is the one that begins at it."""
    size: FrameSize
    each_tokens: int
    """Picture tokens of one frame as it travels."""
    text_tokens: int
    """Set aside for the words of one frame: its handle, its time."""
    key_frames: bool = False
    """Whether the last key frame before each time is shown, if every one of them is another."""

    @property
    def moments_s(self) -> tuple[float, ...]:
        """When to look for each frame."""
        return tuple(time_s + self.lead_s for time_s in self.times_s)

    @property
    def visual_tokens(self) -> int:
        """Picture tokens of all frames."""
        return len(self.times_s) * self.each_tokens

    @property
    def tokens(self) -> int:
        """All of the budget that it takes."""
        return len(self.times_s) * (self.each_tokens + self.text_tokens)

    @property
    def step_s(self) -> float:
        """Mean distance of two frames, 0 for one alone."""
        return (self.times_s[-1] - self.times_s[0]) / (len(self.times_s) - 1) if len(self.times_s) > 1 else 0.0


def schedule_all(
    films: Sequence[Film],
    pace: Pace,
    budget_tokens: int,
    cost: VisualCost,
    text_tokens: int,
    *,
    as_images: bool = False,
) -> tuple[Schedule, ...]:
    """A schedule for each video, all within ``budget_tokens``: equal shares, what a short one leaves goes to others.

    Raises InputError, as ``cost`` does, for a shape that the model does not take.
    """
    wanted = [film.wanted(pace.most_fps, pace.most_frames) for film in films]
    left = budget_tokens
    made: dict[int, Schedule] = {}
    for place, index in enumerate(sorted(range(len(films)), key=wanted.__getitem__)):
        share = left // (len(films) - place)
        made[index] = schedule(films[index], pace, share, cost, text_tokens, as_images=as_images)
        left -= made[index].tokens
    return tuple(made[index] for index in range(len(films)))


def schedule(
    film: Film, pace: Pace, budget_tokens: int, cost: VisualCost, text_tokens: int, *, as_images: bool = False
) -> Schedule:
    """Frames of one video, each with ``text_tokens`` beside its picture; none where not even one fits.

    ``as_images`` counts frames as stills, for models to which they travel so. Raises InputError as ``cost`` does.
    """
    full = cost.frame(film.width, film.height)

    def each(size: FrameSize) -> int:
        return max(size.tokens, cost.image(size.width, size.height).tokens) if as_images else size.tokens

    def fit(frames: int) -> FrameSize | None:
        """The largest common size of so many frames; None where they do not fit."""
        scale = 1.0
        while True:
            width, height = max(1, round(film.width * scale)), max(1, round(film.height * scale))
            plan = cost.clip(width, height, frames, budget_tokens - frames * text_tokens)
            if plan.frames >= frames and frames * (each(plan.size) + text_tokens) <= budget_tokens:
                return plan.size
            if plan.size.tokens <= LEAST_FRAME_TOKENS or min(width, height) == 1:
                return None
            scale *= SHRINK

    most = film.wanted(pace.most_fps, pace.most_frames)
    least = film.wanted(pace.least_fps, pace.most_frames)
    count = _largest(least, most, lambda frames: fit(frames) == full) or _largest(
        1, least, lambda n: fit(n) is not None
    )
    size = fit(count) if count else None
    if size is None:
        return Schedule((), 0.0, full, each(full), text_tokens)
    times_s, lead_s = _spread(film, count)
    made = Schedule(times_s, lead_s, size, each(size), text_tokens)
    return replace(made, key_frames=made.step_s >= pace.key_step_s)


def _largest(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The largest number from ``low`` to ``high`` for which ``holds``, 0 where there is none; true ones come first."""
    if high < low or not holds(low):
        return 0
    while low < high:
        middle = (low + high + 1) // 2
        if holds(middle):
            low = middle
        else:
            high = middle - 1
    return low


def _spread(film: Film, count: int) -> tuple[tuple[float, ...], float]:
    """Times from the first frame to the last, and half a frame."""
    if film.fps is None:
        return tuple(film.duration_s * place / count for place in range(count)), 0.0
    last, gaps = int(film.frames) - 1, max(1, count - 1)
    indices = ((2 * place * last + gaps) // (2 * gaps) for place in range(count))
    return tuple(index / film.fps for index in indices), 0.5 / film.fps
