"""Short samples of one picture: read it and say where, or find the small sign. They teach seeing before acting."""

from __future__ import annotations

import random

from keyeloop.runtime.content import Image, MediaRef, Message, Part, Text, Video
from keyeloop.runtime.evidence import Region, View
from keyeloop.tools.demo_video.glyphs import GlyphAtlas
from keyeloop.tools.demo_video.sampling import sample_scene
from keyeloop.tools.demo_video.scene import Scene, sign_region, text_region
from keyeloop.tools.demo_video.timeline import sample_video
from keyeloop.tools.demo_video.words import number, word
from training.keye_tiny.sample import Sample, Shown, lay_out
from training.keye_tiny.trajectories import FULL, zoom_box
from training.keye_tiny.world import FRAME_SIZE, crop_size

CROP_SIZES = ((336, 140), (280, 140), (224, 168))
"""Width and height in pixels of crops; the first is that of the teacher's zoom."""


EASY_FONTS = 8
"""Fonts of the easiest readers; the rest join as difficulty rises."""


def make_reader(rng: random.Random, atlas: GlyphAtlas, *, heldout: bool = False, difficulty: float = 1.0) -> Sample:
    """One picture and its reading: a frame's board, a crop of the sign or of the board, or the place of the sign.

    Below full difficulty most are easy ones: a frame with a short number or word on a large board.
    """
    if rng.random() >= difficulty:
        return _easy(rng, atlas, heldout, difficulty)
    kind = rng.choices(("board", "sign", "crop", "find"), (6, 3, 1, 2))[0]
    video = sample_video(
        rng,
        atlas,
        heldout=heldout,
        difficulty=difficulty,
        duration_s=60.0,
        shots=3,
        signs=True if kind in ("sign", "find") else None,
    )
    wanted = [shot for shot in video.shots if (shot.sign if kind in ("sign", "find") else shot.board)]
    if not wanted:
        return make_reader(rng, atlas, heldout=heldout, difficulty=difficulty)
    shot = rng.choice(wanted)
    scene = video.scene_at(shot.start_s + 0.2)
    if kind == "sign":
        return _crop(scene, sign_region(scene, 0, atlas), shot.sign or "", _sign_window(rng, scene, atlas), "Sign?")
    if kind == "crop":
        ink = text_region(scene, atlas)
        return _crop(scene, ink, shot.board, _grow(rng, ink), "Read.")
    if kind == "find":
        said = f"[f1 {','.join(map(str, zoom_box(sign_region(scene, 0, atlas))))}]"
        return _sample(scene, _frame(rng), FRAME_SIZE, "Find.", "", said)
    return _board(rng, scene, shot.board, atlas)


def _easy(rng: random.Random, atlas: GlyphAtlas, heldout: bool, difficulty: float) -> Sample:
    longest = 2 + round(5 * difficulty)
    text = number(rng, most_digits=min(longest, 5)) if rng.random() < 0.7 - 0.2 * difficulty else word(rng)[:longest]
    fonts = atlas.choose(heldout=heldout) or tuple(range(atlas.fonts))
    count = min(len(fonts), EASY_FONTS + round(difficulty * len(fonts)))
    known = [fonts[index * len(fonts) // count] for index in range(count)]
    return _board(rng, sample_scene(rng, atlas, text, fonts=known, heldout=heldout, difficulty=difficulty), text, atlas)


def _board(rng: random.Random, scene: Scene, text: str, atlas: GlyphAtlas) -> Sample:
    view = _frame(rng)
    return _sample(scene, view, FRAME_SIZE, "Read.", text, f" {_cite(view, text_region(scene, atlas))}")


def _frame(rng: random.Random) -> View:
    return View("f1", "video-1", "", round(rng.uniform(0, 4000), 1), FULL)


def board_sample(scene: Scene, region: Region, size: tuple[int, int], text: str, atlas: GlyphAtlas) -> Sample:
    """Read the board through a window of the frame, shown at a width and height in pixels."""
    view = View("z1", "video-1", "", 0.0, region, "f1")
    return _sample(scene, view, size, "Read.", text, f" {_cite(view, text_region(scene, atlas))}")


def _crop(scene: Scene, ink: Region, text: str, region: Region, request: str) -> Sample:
    view = View("z1", "video-1", "", 0.0, region, "f1")
    return _sample(scene, view, crop_size(region), request, text, f" {_cite(view, ink)}")


def _sample(scene: Scene, view: View, size: tuple[int, int], request: str, read: str, cited: str) -> Sample:
    width, height = size
    image = Image(MediaRef("", "image/jpeg", 0, width, height), view)
    part: Part = image if view.parent else Video((image,))
    messages = [
        Message("user", (part, Text(request))),
        Message("assistant", raw=f"\n</think>\n\n{read}{cited}"),
    ]
    shown = {view.handle: Shown(scene, view.region, width, height)}
    return lay_out("reader", messages, (), shown, open_reply=False, readings=[read] * bool(read))


def _cite(view: View, region: Region) -> str:
    sides = (min(max(round(side / 10) * 10, 0), 1000) for side in view.box_of(region))
    return f"[{view.handle} {','.join(map(str, sides))}]"


def _sign_window(rng: random.Random, scene: Scene, atlas: GlyphAtlas) -> Region:
    """The teacher's zoom box around the sign, moved a little; now and then another box that holds the text."""
    ink = sign_region(scene, 0, atlas)
    if rng.random() < 0.3:
        return _grow(rng, ink)
    x0, y0, x1, y1 = zoom_box(ink)
    scale_x, scale_y = scene.width / 1000, scene.height / 1000
    shift_x, shift_y = rng.uniform(-15, 15), rng.uniform(-12, 12)
    return Region(x0 * scale_x + shift_x, y0 * scale_y + shift_y, x1 * scale_x + shift_x, y1 * scale_y + shift_y)


def _grow(rng: random.Random, ink: Region) -> Region:
    """A box with margins around the ink that is shown at one of ``CROP_SIZES``: each size costs a rendering pass."""
    for _ in range(40):
        high = ink.height * rng.uniform(1.6, 4.0)
        wide = high * rng.uniform(1.0, 3.4)
        if wide < ink.width + 0.4 * ink.height:
            continue
        x0 = rng.uniform(max(ink.x1 + 0.2 * ink.height - wide, 0.0), max(ink.x0 - 0.2 * ink.height, 0.0))
        y0 = rng.uniform(max(ink.y1 + 0.2 * ink.height - high, 0.0), max(ink.y0 - 0.2 * ink.height, 0.0))
        grown = Region(x0, y0, min(x0 + wide, FULL.x1), min(y0 + high, FULL.y1))
        if crop_size(grown) in CROP_SIZES and grown.x1 >= ink.x1 and grown.y1 >= ink.y1:
            return grown
    return FULL
