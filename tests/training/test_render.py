"""The batch renderer against the painter, and the imitated codec against a real one."""

from __future__ import annotations

import random
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ImageFont

from keyeloop.runtime.evidence import Region
from keyeloop.tools.demo_video.glyphs import CAP_PX, CHARACTERS, GlyphAtlas
from keyeloop.tools.demo_video.paint import paint
from keyeloop.tools.demo_video.sampling import sample_scene
from keyeloop.tools.demo_video.scene import Scene, Style, sign_region, text_region
from keyeloop.tools.video.child.picture import cut
from training.keye_tiny import font_atlas
from training.keye_tiny.codec import jpeg
from training.keye_tiny.packing import FIELDS, pack, stack
from training.keye_tiny.real_frames import View, film, real_batch, see, stored
from training.keye_tiny.render import BatchRenderer

THUMBNAIL, CROP, ENLARGED = (252, 140), (308, 140), (252, 112)


@pytest.fixture(scope="module")
def atlas() -> GlyphAtlas:
    return GlyphAtlas.bundled()


@pytest.fixture(scope="module")
def scenes(atlas: GlyphAtlas) -> list[Scene]:
    """One scene of every background, with grain left out."""
    rng = random.Random(11)
    found = []
    for style in Style:
        scene = sample_scene(rng, atlas, rng.choice(("48213", "Garden", "907")), ["window", "3650"])
        found.append(replace(scene, noise=0.0, background=replace(scene.background, style=style)))
    return found


def around(region: Region, width: float, height: float) -> Region:
    x0 = min(max((region.x0 + region.x1 - width) / 2, 0), 1280 - width)
    y0 = min(max((region.y0 + region.y1 - height) / 2, 0), 720 - height)
    return Region(x0, y0, x0 + width, y0 + height)


def views(scenes: list[Scene], atlas: GlyphAtlas, kind: str) -> list[View]:
    if kind == "thumbnail":
        return [View(scene, scene.region, *THUMBNAIL) for scene in scenes]
    if kind == "crop":
        return [View(scene, around(sign_region(scene, 0, atlas), 320, 137), *CROP) for scene in scenes]
    return [View(scene, around(sign_region(scene, 1, atlas), 181.3, 80.4), *ENLARGED) for scene in scenes]


def rendered(shown: list[View], atlas: GlyphAtlas, *, degrade: bool) -> np.ndarray:
    renderer = BatchRenderer(atlas, "cpu", generator=torch.Generator().manual_seed(1))
    packed = stack([pack(view.scene, view.region, atlas) for view in shown])
    return renderer.render(packed, shown[0].height, shown[0].width, degrade=degrade).numpy()


def painted(view: View, atlas: GlyphAtlas) -> np.ndarray:
    region = view.region
    pixels = paint(view.scene, atlas)
    return cut(pixels, (1280, 720), (region.x0, region.y0, region.x1, region.y1), (view.width, view.height))


def ink_of(view: View, atlas: GlyphAtlas) -> tuple[slice, slice]:
    """Rows and columns of the picture that hold the text it is about."""
    whole = view.region.width == view.scene.width
    nearest = (
        text_region(view.scene, atlas)
        if whole
        else min((sign_region(view.scene, index, atlas) for index in (0, 1)), key=lambda r: -r.iou(view.region))
    )
    scale_x, scale_y = view.width / view.region.width, view.height / view.region.height
    x0, x1 = ((side - view.region.x0) * scale_x for side in (nearest.x0, nearest.x1))
    y0, y1 = ((side - view.region.y0) * scale_y for side in (nearest.y0, nearest.y1))
    return slice(max(int(y0), 0), int(y1) + 1), slice(max(int(x0), 0), int(x1) + 1)


@pytest.mark.parametrize(("kind", "most"), [("thumbnail", 0.8), ("crop", 0.8), ("enlarged", 0.8)])
def test_clean_render_is_the_resized_painting(scenes: list[Scene], atlas: GlyphAtlas, kind: str, most: float) -> None:
    shown = views(scenes, atlas, kind)
    for view, pixels in zip(shown, rendered(shown, atlas, degrade=False), strict=True):
        away = np.abs(pixels.astype(int) - painted(view, atlas))
        assert away.mean() < most, view.scene.background.style.name
        assert away[ink_of(view, atlas)].mean() < 2.5, view.scene.background.style.name


def test_render_and_painting_agree_on_places(scenes: list[Scene], atlas: GlyphAtlas) -> None:
    """The shift that explains most of a thumbnail's difference, by its slopes, is under a twentieth of a pixel."""
    shown = views(scenes, atlas, "thumbnail")
    for view, pixels in zip(shown, rendered(shown, atlas, degrade=False), strict=True):
        rows, columns = ink_of(view, atlas)
        ours, theirs = (picture[rows, columns].astype(np.float64).mean(2) for picture in (pixels, painted(view, atlas)))
        for slope in np.gradient(theirs):
            shift = (slope * (ours - theirs)).sum() / (slope**2).sum()
            assert abs(shift) < 0.05, view.scene.background.style.name


def test_imitated_jpeg_is_the_stored_one(scenes: list[Scene], atlas: GlyphAtlas) -> None:
    clean = np.stack([painted(view, atlas) for view in views(scenes, atlas, "thumbnail")])
    ours = jpeg(torch.from_numpy(clean).permute(0, 3, 1, 2).float()).permute(0, 2, 3, 1).numpy()
    theirs = np.stack([stored(picture) for picture in clean]).astype(int)
    assert np.abs(ours - theirs).mean() < 0.35
    assert np.abs(ours - theirs).mean() < np.abs(clean - theirs).mean() / 2


@pytest.mark.parametrize(
    ("kind", "mean_levels", "ink_levels", "ink_decibels"),
    [("thumbnail", 2.5, 5.0, 31), ("crop", 4.0, 9.0, 26), ("enlarged", 4.5, 9.0, 26)],
)
def test_imitation_is_close_to_the_real_path(
    scenes: list[Scene], atlas: GlyphAtlas, kind: str, mean_levels: float, ink_levels: float, ink_decibels: float
) -> None:
    shown = views(scenes, atlas, kind)
    decoded = film([view.scene for view in shown], atlas, 25, "veryfast", 2)
    ours = rendered(shown, atlas, degrade=True)
    clean = rendered(shown, atlas, degrade=False)
    away, ink = [], []
    for view, pixels, mine in zip(shown, decoded, ours, strict=True):
        difference = mine.astype(float) - see(pixels, view)
        away.append(np.abs(difference).mean())
        ink.append(difference[ink_of(view, atlas)].ravel())
    together = np.concatenate(ink)
    assert np.mean(away) < mean_levels
    assert np.abs(together).mean() < ink_levels
    assert 10 * np.log10(255**2 / (together**2).mean()) > ink_decibels
    real = np.stack([see(pixels, view) for pixels, view in zip(decoded, shown, strict=True)]).astype(int)
    ratio = np.abs(ours.astype(int) - clean).mean() / np.abs(real - clean).mean()
    assert 0.6 < ratio < 1.4, "the imitation changes pictures about as much as the codec does"


def test_order_is_kept_where_some_shrink_and_some_grow(scenes: list[Scene], atlas: GlyphAtlas) -> None:
    large, small = views(scenes[:3], atlas, "crop"), views(scenes[:3], atlas, "enlarged")
    mixed = [replace(view, width=252, height=112) for pair in zip(large, small, strict=True) for view in pair]
    together = rendered(mixed, atlas, degrade=False)
    for index, view in enumerate(mixed):
        alone = rendered([view], atlas, degrade=False)[0]
        assert np.abs(alone.astype(int) - together[index]).max() <= 1


def test_grain_and_quality_vary_from_frame_to_frame(scenes: list[Scene], atlas: GlyphAtlas) -> None:
    loud = [View(replace(scenes[0], noise=6.0), around(sign_region(scenes[0], 0, atlas), 320, 137), *CROP)] * 4
    frames = rendered(loud, atlas, degrade=True)
    assert len({frame.tobytes() for frame in frames}) == 4


def test_packing_refuses_what_does_not_fit(scenes: list[Scene], atlas: GlyphAtlas) -> None:
    scene = scenes[0]
    assert pack(scene, scene.region, atlas).shape == (FIELDS,)
    with pytest.raises(ValueError, match="more than 10 letters"):
        pack(scene.with_texts("12345678901"), scene.region, atlas)
    with pytest.raises(ValueError, match="at most 2 signs"):
        pack(replace(scene, signs=scene.signs * 2), scene.region, atlas)


def test_real_batch_is_deterministic_and_shows_what_was_drawn(atlas: GlyphAtlas) -> None:
    def draw(rng: random.Random) -> View:
        scene = sample_scene(rng, atlas, "371", difficulty=0.2)
        return View(scene, scene.region, *THUMBNAIL)

    one, two = (real_batch(3, 3, atlas, draw, scenes_a_file=2) for _ in range(2))
    assert [view for view, _ in one] == [view for view, _ in two]
    for (view, pixels), (_, again) in zip(one, two, strict=True):
        assert np.array_equal(pixels, again)
        assert np.abs(pixels.astype(int) - painted(view, atlas)).mean() < 4


def test_an_atlas_is_built_from_a_font_file(tmp_path: Path) -> None:
    default = ImageFont.load_default(20)
    assert isinstance(default, ImageFont.FreeTypeFont) and isinstance(default.path, BytesIO)
    (tmp_path / "face.ttf").write_bytes(default.path.getvalue())
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    faces = font_atlas.scan([tmp_path])
    assert len(faces) == 1
    atlas = font_atlas.pack(faces)
    line = atlas.line("H", 0)
    assert abs((line.bottom - line.top) - CAP_PX) <= 1
    assert atlas.start.shape == (1, len(CHARACTERS))
    clone = replace(faces[0], family="Another")
    cabin = replace(faces[0], family="Cabin")
    assert [face.family for face in font_atlas.training_faces([faces[0], clone])] == ["Aileron"]
    assert font_atlas.training_faces([cabin, clone]) == [], "a held-out face and its clones are never trained on"
