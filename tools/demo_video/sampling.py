"""Draws the look of a board video: background, board, signs, fonts and colours, from plain to hard."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from keyeloop.tools.demo_video.glyphs import CAP_PX, GlyphAtlas
from keyeloop.tools.demo_video.scene import (
    HELDOUT_STYLES,
    Background,
    Colour,
    Panel,
    Scene,
    Shape,
    ShapeKind,
    Style,
    TextRun,
)

WIDTH_PX, HEIGHT_PX = 1280, 720
BOARD_CAP_PX = (110.0, 260.0)
"""Capitals of 21 to 51 pixels in a 252 x 140 thumbnail."""
SIGN_CAP_PX = (17.0, 24.0)
"""Capitals of 3 to 5 pixels in a thumbnail: too small to read there, clear in a crop at source size."""
MAX_BOARD_WIDTH_PX = 1240
MAX_BOARD_HEIGHT_PX = 520
"""Leaves a band above or below the board that holds the signs."""
MARGIN_PX = 10
MAX_SHAPES = 6
TRAINING_STYLES = tuple(style for style in Style if style not in HELDOUT_STYLES)
PLAIN_STYLES = (Style.FLAT, Style.LINEAR, Style.RADIAL, Style.ROOM, Style.SPLIT)

Texts = str | Sequence[str]


@dataclass(frozen=True)
class _Box:
    x0: int
    y0: int
    x1: int
    y1: int

    def clear_of(self, other: _Box, gap: int) -> bool:
        aside = self.x1 + gap <= other.x0 or other.x1 + gap <= self.x0
        return aside or self.y1 + gap <= other.y0 or other.y1 + gap <= self.y0


def sample_scene(
    rng: random.Random,
    atlas: GlyphAtlas,
    texts: Texts,
    sign_texts: Sequence[Texts] = (),
    *,
    fonts: Sequence[int] | None = None,
    heldout: bool = False,
    difficulty: float = 1.0,
) -> Scene:
    """Draw a scene of 1280 x 720 pixels that shows the first of ``texts`` and one sign for each of ``sign_texts``.

    Give every text that board or sign will show in turn: sizes fit the widest, so that ``with_texts`` may show any of
    them. ``fonts`` are indices into ``atlas``; without them all held-out fonts (``heldout``) or all others are used.
    ``heldout`` also takes the backgrounds kept for evaluation. ``difficulty`` goes from 0 (plain ground, strong
    contrast, large letters) to 1. At most two signs.
    """
    pool = tuple(fonts) if fonts is not None else atlas.choose(heldout=heldout) or tuple(range(atlas.fonts))
    background = _background(rng, heldout, difficulty)
    board = _board(rng, atlas, _listed(texts), rng.choice(pool), background, difficulty)
    signs: list[Panel] = []
    for shown in sign_texts[:2]:
        signs.append(_sign(rng, atlas, _listed(shown), rng.choice(pool), [board, *signs], difficulty))
    count = rng.randint(0, round(MAX_SHAPES * difficulty))
    return Scene(
        background=background,
        board=board,
        signs=tuple(signs),
        shapes=tuple(_shape(rng) for _ in range(count)),
        brightness=rng.uniform(-18, 18) * difficulty,
        contrast=1 + rng.uniform(-0.18, 0.12) * difficulty,
        noise=rng.uniform(0, 6) * difficulty if rng.random() < 0.6 else 0.0,
    )


def _listed(texts: Texts) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts)


def _background(rng: random.Random, heldout: bool, difficulty: float) -> Background:
    if heldout:
        style = rng.choice(HELDOUT_STYLES)
    else:
        style = rng.choice(TRAINING_STYLES if rng.random() < difficulty else PLAIN_STYLES)
    first = _colour(rng)
    near = rng.random() < 0.6
    second = _near(rng, first, 45) if near else _colour(rng)
    low, high = (300, 1200) if style in (Style.LINEAR, Style.RADIAL, Style.CLOUDS) else (34, 220)
    return Background(
        style=style,
        first=first,
        second=second,
        angle_rad=rng.choice((0.0, math.pi / 2, rng.uniform(0, math.pi))),
        period_px=math.exp(rng.uniform(math.log(low), math.log(high))),
        phase=rng.random(),
        share=rng.uniform(0.25, 0.7),
    )


def _board(
    rng: random.Random, atlas: GlyphAtlas, texts: list[str], font: int, ground: Background, difficulty: float
) -> Panel:
    spacing = rng.uniform(0, 0.16) if rng.random() < 0.4 else 0.0
    widest = max(atlas.widest(texts, font, spacing), 2 * CAP_PX)
    low, high = BOARD_CAP_PX
    low += 50 * (1 - difficulty)
    room = (MAX_BOARD_WIDTH_PX - 40) * CAP_PX / widest
    cap = max(min(rng.uniform(low, high), room), 40.0)
    pad_x, pad_y = cap * rng.uniform(0.2, 0.9), cap * rng.uniform(0.42, 0.8)
    ink = widest * cap / CAP_PX
    width = min(round(ink + 2 * pad_x), MAX_BOARD_WIDTH_PX)
    height = min(round(cap + 2 * pad_y), MAX_BOARD_HEIGHT_PX)
    fill = _distinct(rng, lambda: _colour(rng), (ground.first, ground.second), 90)
    border_px = rng.randint(3, 16) if rng.random() < 0.6 else 0
    box = _placed(rng, width, height)
    slack_x = max((width - ink) / 2 - border_px - 0.1 * cap, 0.0)
    run = TextRun(
        text=texts[0],
        font=font,
        cap_px=cap,
        x=(box.x0 + box.x1) / 2 + rng.uniform(-0.5, 0.5) * slack_x,
        y=(box.y0 + box.y1) / 2 + rng.uniform(-0.04, 0.0) * cap,
        colour=_readable(rng, fill, difficulty),
        spacing=spacing,
    )
    border = _near(rng, fill, 110) if rng.random() < 0.5 else _colour(rng)
    return Panel((box.x0, box.y0, box.x1, box.y1), fill, border, border_px, run)


def _sign(
    rng: random.Random, atlas: GlyphAtlas, texts: list[str], font: int, others: list[Panel], difficulty: float
) -> Panel:
    cap = rng.uniform(*SIGN_CAP_PX)
    spacing = rng.uniform(0, 0.12) if rng.random() < 0.3 else 0.0
    widest = max(atlas.widest(texts, font, spacing), CAP_PX)
    width = round(widest * cap / CAP_PX + 2 * cap * rng.uniform(0.45, 0.9))
    height = round(cap * (1 + 2 * rng.uniform(0.42, 0.7)))
    taken = [_Box(*panel.box) for panel in others]
    for _ in range(12):
        box = _placed(rng, width, height)
        if all(box.clear_of(other, 14) for other in taken):
            break
    else:
        box = _beside(rng, width, height, taken)
    fill = _distinct(rng, lambda: _colour(rng), (others[0].fill,), 60)
    border_px = rng.randint(1, 3) if rng.random() < 0.5 else 0
    run = TextRun(
        text=texts[0],
        font=font,
        cap_px=cap,
        x=(box.x0 + box.x1) / 2,
        y=(box.y0 + box.y1) / 2,
        colour=_readable(rng, fill, difficulty, extra=25),
        spacing=spacing,
    )
    return Panel((box.x0, box.y0, box.x1, box.y1), fill, _near(rng, fill, 110), border_px, run)


def _placed(rng: random.Random, width: int, height: int) -> _Box:
    x0 = rng.randint(MARGIN_PX, max(WIDTH_PX - width - MARGIN_PX, MARGIN_PX))
    y0 = rng.randint(MARGIN_PX, max(HEIGHT_PX - height - MARGIN_PX, MARGIN_PX))
    return _Box(x0, y0, x0 + width, y0 + height)


def _beside(rng: random.Random, width: int, height: int, taken: list[_Box]) -> _Box:
    """A place in the larger band above or below the board (the first of ``taken``), clear of the other sign."""
    board = taken[0]
    above = board.y0 > HEIGHT_PX - board.y1
    y0 = (board.y0 - height) // 2 if above else (board.y1 + HEIGHT_PX - height) // 2
    y0 = min(max(y0, 2), HEIGHT_PX - height - 2)
    for _ in range(30):
        x0 = rng.randint(MARGIN_PX, max(WIDTH_PX - width - MARGIN_PX, MARGIN_PX))
        box = _Box(x0, y0, x0 + width, y0 + height)
        if all(box.clear_of(other, 4) for other in taken[1:]):
            break
    return box


def _shape(rng: random.Random) -> Shape:
    """An ellipse, a rectangle or a line anywhere; board and signs are painted over it."""
    kind = rng.choice(("ellipse", "rectangle", "line"))
    half_width, half_height = rng.uniform(12, 150), rng.uniform(12, 120)
    if kind == "line":
        half_width, half_height = rng.uniform(60, 500), rng.uniform(1.5, 6)
    turned = kind == "line" or rng.random() < 0.4
    return Shape(
        kind=ShapeKind.ELLIPSE if kind == "ellipse" else ShapeKind.RECTANGLE,
        x=rng.uniform(0, WIDTH_PX),
        y=rng.uniform(0, HEIGHT_PX),
        half_width=half_width,
        half_height=half_height,
        angle_rad=rng.uniform(0, math.pi) if turned else 0.0,
        colour=_colour(rng),
    )


def _luma(colour: Colour) -> float:
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def _colour(rng: random.Random) -> Colour:
    kind = rng.random()
    if kind < 0.25:
        grey = rng.choice((rng.randint(0, 60), rng.randint(190, 255), rng.randint(0, 255)))
        return grey, grey, grey
    return rng.randint(0, 255), rng.randint(0, 255), rng.randint(0, 255)


def _near(rng: random.Random, colour: Colour, reach: int) -> Colour:
    red, green, blue = (min(max(value + rng.randint(-reach, reach), 0), 255) for value in colour)
    return red, green, blue


def _distinct(rng: random.Random, draw: Callable[[], Colour], others: Sequence[Colour], distance: int) -> Colour:
    for _ in range(8):
        colour = draw()
        if all(sum(abs(a - b) for a, b in zip(colour, other, strict=True)) >= distance for other in others):
            break
    return colour


def _readable(rng: random.Random, fill: Colour, difficulty: float, extra: float = 0.0) -> Colour:
    """A text colour whose luma is far from ``fill``: at least 80 of 255 levels at full difficulty, 140 at none."""
    wanted = 140 - 60 * difficulty + extra * difficulty
    dark = _luma(fill) > 127.5
    for _ in range(10):
        colour = _colour(rng)
        if abs(_luma(colour) - _luma(fill)) >= wanted:
            return colour
    grey = rng.randint(0, 15)
    return (grey, grey, grey) if dark else (255 - grey, 255 - grey, 255 - grey)
