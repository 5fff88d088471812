"""Build glyph atlases from installed font files.

``python -m training.keye_tiny.font_atlas OUT.npz [--bundled]`` scans ``/usr/share/fonts``; without ``--bundled`` every
usable face outside the held-out families goes in, with it the faces of :data:`BUNDLED` and of the held-out families.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from keyeloop.tools.demo_video.glyphs import BASELINE, CAP_PX, CHARACTERS, ROWS, GlyphAtlas

FOLDERS = (Path("/usr/share/fonts"),)
HELDOUT = ("Cabin Bold", "Caladea Bold", "JetBrains Mono Medium", "Manrope SemiBold")
HELDOUT_FAMILIES = ("Cabin", "CabinSketch", "Cabin Sketch", "Caladea", "JetBrains Mono", "JetBrains Mono NL", "Manrope")
BUNDLED = (
    "Open Sans Bold", "Roboto Medium", "Lato Bold", "Arimo Bold", "DejaVu Sans Bold", "Inter Semi Bold",
    "Linux Libertine O Semibold", "Roboto Slab Bold", "Clear Sans Bold", "Hack Bold", "Comfortaa Bold", "Dosis Bold",
)  # fmt: skip
UNFIT_FAMILIES = (
    "Glass TTY VT220", "Irianis ADF Style Std", "Solothurn", "unifur", "Wargames", "Engadget", "It wasn't me", "Cupola",
)  # fmt: skip
"""Letters too odd to be told apart by someone who has not learned the font."""
UNFIT_NAMES = (
    "sketch", "smallcap", "caps", "-sc", "allsc", "symbol", "math", "fraktur", "klingon", "keyboard", "outline",
    "euterpe", "dings", "awesome", "phonetic", "ipa", "futhark", "stencil", "initials", "line",
)  # fmt: skip
"""Parts of file names of faces without plain letters."""
NOTO_PARTS = ("NotoSans-", "NotoSerif-", "NotoSansDisplay-", "NotoSerifDisplay-", "NotoSansMono-")
FAINTEST_INK = 0.15
"""Share of ink between the top of the capitals and the line, below which a face vanishes in a thumbnail."""
FACES_PER_FAMILY = 5
MAX_WIDTH_PX = 120
OVERSAMPLE = 4
SAME_SHAPES = 0.14
"""Faces whose masks differ by less than this (mean absolute difference over mean ink) count as one."""


@dataclass(frozen=True)
class Face:
    """One face of a font file, measured at the atlas's cap height; lists are in the order of ``CHARACTERS``."""

    family: str
    style: str
    masks: tuple[np.ndarray, ...]
    """uint8 ``[96, ink width]``."""
    left: tuple[int, ...]
    advance: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.family} {self.style}"


def read_face(path: Path) -> Face | str:
    """Draw a font file's letters; a string says why the face cannot be used."""
    try:
        probe = ImageFont.truetype(str(path), 1000, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        return f"unreadable: {error}"
    family, style = (part or "Regular" for part in probe.getname())
    _, top, _, bottom = probe.getbbox("H", anchor="ls")
    if bottom - top < 200 or abs(bottom) > 60:
        return "odd capitals"
    size = 1000 * CAP_PX * OVERSAMPLE / (bottom - top)
    font = ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)
    missing = bytes(font.getmask("\U000f0f0f"))
    masks, lefts, advances = [], [], []
    for character in CHARACTERS:
        if bytes(font.getmask(character)) == missing:
            return f"has no {character}"
        pad = 64
        canvas = Image.new("L", ((MAX_WIDTH_PX + 2 * pad) * OVERSAMPLE, (ROWS + 64) * OVERSAMPLE))
        ImageDraw.Draw(canvas).text((pad * OVERSAMPLE, (BASELINE + 32) * OVERSAMPLE), character, 255, font, anchor="ls")
        ink = np.asarray(canvas.reduce(OVERSAMPLE))
        ink = np.where(ink < 8, 0, ink).astype(np.uint8)
        if ink[:32].any() or ink[32 + ROWS :].any():
            return f"{character} is too tall"
        used = np.flatnonzero(ink.any(axis=0))
        if not used.size:
            return f"{character} is blank"
        first, last = int(used[0]), int(used[-1]) + 1
        if last - first > MAX_WIDTH_PX or first == 0 or last == ink.shape[1]:
            return f"{character} is too wide"
        masks.append(ink[32 : 32 + ROWS, first:last])
        lefts.append(first - pad)
        advances.append(round(font.getlength(character) / OVERSAMPLE))
    return _judge(Face(family, style, tuple(masks), tuple(lefts), tuple(advances)))


def _judge(face: Face) -> Face | str:
    """Refuse faces whose letters a reader could not tell apart or that are too faint."""
    heights = {c: int(np.ptp(np.flatnonzero((m > 64).any(axis=1))) + 1) if (m > 64).any() else 0
               for c, m in zip(CHARACTERS, face.masks, strict=True)}  # fmt: skip
    if min(heights[c] for c in "0123456789") < 0.6 * CAP_PX:
        return "low digits"
    if max(heights[c] for c in "acemnorsuvwxz") > 0.9 * CAP_PX:
        return "no small letters"
    if min(heights[c] for c in "acemnorsuvwxz") < 0.42 * CAP_PX:
        return "tiny small letters"
    shapes = {c: _thumbnail(m) for c, m in zip(CHARACTERS, face.masks, strict=True)}
    alike = sum(float(np.abs(shapes[c] - shapes[c.upper()]).mean()) < 0.06 for c in "abdefghmnqrty")
    if alike >= 4:
        return "small letters are small capitals"
    digits = [shapes[c] for c in "0123456789"]
    if min(float(np.abs(a - b).mean()) for i, a in enumerate(digits) for b in digits[:i]) < 0.02:
        return "digits alike"
    if np.concatenate([mask[BASELINE - CAP_PX : BASELINE] > 128 for mask in face.masks], axis=1).mean() < FAINTEST_INK:
        return "too thin"
    if face.family in UNFIT_FAMILIES:
        return "too odd"
    return face


def _thumbnail(mask: np.ndarray) -> np.ndarray:
    rows = np.flatnonzero(mask.any(axis=1))
    cut = Image.fromarray(np.ascontiguousarray(mask[rows[0] : rows[-1] + 1])).resize((24, 24), Image.Resampling.BOX)
    return np.asarray(cut, np.float32) / 255


def signature(face: Face) -> np.ndarray:
    """A face's letters in fixed cells, for telling clones: float32 ``[62, 24, 30]``."""
    cells = np.zeros((len(CHARACTERS), ROWS, MAX_WIDTH_PX), np.uint8)
    for cell, mask in zip(cells, face.masks, strict=True):
        cell[:, : mask.shape[1]] = mask
    shrunk = cells.reshape(len(CHARACTERS), 24, 4, 30, 4).mean(axis=(2, 4))
    return np.asarray(shrunk / 255, np.float32)


def pack(faces: Iterable[Face], heldout_families: Iterable[str] = ()) -> GlyphAtlas:
    """One atlas of many faces, in the order given."""
    faces, families = list(faces), set(heldout_families)
    masks = [mask for face in faces for mask in face.masks]
    count = len(CHARACTERS)
    width = np.array([mask.shape[1] for mask in masks], np.int32).reshape(-1, count)
    start = np.concatenate([[0], np.cumsum(width.ravel())[:-1]]).astype(np.int32).reshape(-1, count)
    rows = [np.flatnonzero((mask > 40).any(axis=1)) for mask in masks]
    return GlyphAtlas(
        names=tuple(face.name for face in faces),
        heldout=tuple(face.family in families for face in faces),
        columns=np.concatenate([mask.T for mask in masks]),
        start=start,
        width=width,
        left=np.array([face.left for face in faces], np.int32),
        advance=np.array([face.advance for face in faces], np.int32),
        top=np.array([r[0] for r in rows], np.int32).reshape(-1, count),
        bottom=np.array([r[-1] + 1 for r in rows], np.int32).reshape(-1, count),
    )


def scan(folders: Iterable[Path] = FOLDERS, *, log: bool = False) -> list[Face]:
    """Every usable face below ``folders``, sorted by name, each name once."""
    found: dict[str, Face] = {}
    paths = sorted(p for folder in folders for p in folder.rglob("*") if p.suffix.lower() in (".ttf", ".otf"))
    for path in paths:
        if _skipped(path.name):
            continue
        face = read_face(path)
        if isinstance(face, str):
            if log:
                print(f"- {path.name}: {face}")
        elif face.name not in found:
            found[face.name] = face
    return [found[name] for name in sorted(found)]


def _skipped(name: str) -> bool:
    if name.startswith("Noto"):
        return not name.startswith(NOTO_PARTS)
    return any(word in name.lower() for word in UNFIT_NAMES)


def training_faces(faces: list[Face]) -> list[Face]:
    """Faces to train on: none of a held-out family nor a clone of one, few of a family, no clones among themselves."""
    chosen: list[Face] = []
    shapes = [signature(face) for face in faces if face.family in HELDOUT_FAMILIES]
    families: dict[str, int] = {}
    for face in sorted(faces, key=_order):
        root = face.family
        if root in HELDOUT_FAMILIES or root.startswith(HELDOUT_FAMILIES) or families.get(root, 0) >= FACES_PER_FAMILY:
            continue
        mine = signature(face)
        if any(float(np.abs(mine - other).mean() / other.mean()) < SAME_SHAPES for other in shapes):
            continue
        shapes.append(mine)
        families[root] = families.get(root, 0) + 1
        chosen.append(face)
    return sorted(chosen, key=lambda face: face.name)


def _order(face: Face) -> tuple[int, str]:
    """Plain faces first, then bold ones, then the rest, so that a family's share is varied."""
    style = face.style.lower()
    plain = style in ("regular", "book", "roman", "medium")
    bold = style in ("bold", "semibold", "demi bold", "heavy", "black")
    return (0 if plain else 1 if bold else 2, face.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--bundled", action="store_true")
    args = parser.parse_args()
    faces = scan(log=True)
    if args.bundled:
        by_name = {face.name: face for face in faces}
        missing = [name for name in BUNDLED + HELDOUT if name not in by_name]
        if missing:
            raise SystemExit(f"not installed or not usable: {missing}; usable: {sorted(by_name)}")
        atlas = pack([by_name[name] for name in BUNDLED + HELDOUT], HELDOUT_FAMILIES)
    else:
        atlas = pack(training_faces(faces))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    atlas.save(args.out)
    print(f"{args.out}: {atlas.fonts} faces, {args.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
