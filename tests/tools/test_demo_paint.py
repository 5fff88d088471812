"""Painted board videos: letters where the regions say, looks that hold their texts, pixels of the asked colours."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from keyeloop.runtime.errors import InputError
from keyeloop.tools.demo_video.glyphs import CHARACTERS, GlyphAtlas
from keyeloop.tools.demo_video.paint import paint
from keyeloop.tools.demo_video.sampling import BOARD_CAP_PX, SIGN_CAP_PX, sample_scene
from keyeloop.tools.demo_video.scene import (
    HELDOUT_STYLES,
    Background,
    Panel,
    Scene,
    Shape,
    ShapeKind,
    Style,
    TextRun,
    panel_region,
    run_region,
    sign_region,
    text_region,
)

THUMBNAIL_SCALE = 252 / 1280
GREY = (90, 90, 90)


@pytest.fixture(scope="module")
def atlas() -> GlyphAtlas:
    return GlyphAtlas.bundled()


def plain(text: str, *, cap_px: float = 150.0, style: Style = Style.FLAT, font: int = 0) -> Scene:
    run = TextRun(text, font, cap_px, 640, 250, (255, 255, 255))
    board = Panel((100, 80, 1180, 420), (20, 40, 60), (0, 0, 0), 0, run)
    return Scene(Background(style, GREY, (200, 180, 160), 0.4, 90.0, 0.3, 0.5), board)


def ink_box(scene: Scene, atlas: GlyphAtlas) -> tuple[int, int, int, int]:
    empty = paint(scene.with_texts(""), atlas).astype(int)
    changed = np.abs(paint(scene, atlas) - empty).sum(2) > 150
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def test_bundled_atlas_has_seen_and_heldout_fonts_with_distinct_letters(atlas: GlyphAtlas) -> None:
    assert len(atlas.choose(heldout=True)) == 4
    assert len(atlas.choose(heldout=False)) == 12
    for font in range(atlas.fonts):
        masks = {atlas.strip(atlas.line(character, font)).tobytes() for character in CHARACTERS}
        assert len(masks) == len(CHARACTERS), atlas.names[font]


def test_atlas_survives_saving_to_sixteen_levels(atlas: GlyphAtlas, tmp_path: Path) -> None:
    atlas.save(tmp_path / "again.npz")
    again = GlyphAtlas.load(tmp_path / "again.npz")
    assert again.names == atlas.names and again.heldout == atlas.heldout
    assert np.array_equal(again.columns, atlas.columns)
    assert again.line("Ag7", 3) == atlas.line("Ag7", 3)


def test_a_file_that_is_no_atlas_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "no.npz").write_bytes(b"text")
    with pytest.raises(InputError, match="not a glyph atlas"):
        GlyphAtlas.load(tmp_path / "no.npz")
    with pytest.raises(InputError, match="not a glyph atlas"):
        GlyphAtlas.load(tmp_path / "missing.npz")


def test_unknown_letter_is_named(atlas: GlyphAtlas) -> None:
    with pytest.raises(InputError, match="'-'"):
        atlas.line("12-3", 0)


def test_spacing_widens_a_line_between_letters_only(atlas: GlyphAtlas) -> None:
    assert atlas.line("123", 0, 0.25).width == atlas.line("123", 0).width + 2 * 16
    assert atlas.line("", 0).width == 0


@pytest.mark.parametrize("text", ["7", "48213", "Ag", "jump", "QUEUE"])
@pytest.mark.parametrize(("cap_px", "font"), [(150.0, 0), (113.7, 6), (40.0, 12)])
def test_region_is_the_painted_ink(atlas: GlyphAtlas, text: str, cap_px: float, font: int) -> None:
    scene = plain(text, cap_px=cap_px, font=font)
    region = text_region(scene, atlas)
    assert np.abs(np.subtract(ink_box(scene, atlas), (region.x0, region.y0, region.x1, region.y1))).max() < 2.5


def test_board_text_is_centred(atlas: GlyphAtlas) -> None:
    x0, y0, x1, y1 = ink_box(plain("HEH"), atlas)
    assert abs((x0 + x1) / 2 - 640) <= 1
    assert abs((y0 + y1) / 2 - 250) <= 1
    assert abs((y1 - y0) - 150) <= 2


def test_colours_are_exact_and_shapes_stay_below_the_board(atlas: GlyphAtlas) -> None:
    shapes = (
        Shape(ShapeKind.ELLIPSE, 640, 560, 100, 60, 0.0, (255, 0, 0)),
        Shape(ShapeKind.RECTANGLE, 640, 250, 60, 60, 0.5, (0, 255, 0)),
    )
    scene = replace(plain(""), shapes=shapes)
    pixels = paint(scene, atlas)
    assert tuple(pixels[10, 10]) == GREY
    assert tuple(pixels[560, 640]) == (255, 0, 0)
    assert tuple(pixels[250, 640]) == (20, 40, 60)
    assert tuple(pixels[79, 99]) == GREY and tuple(pixels[80, 100]) == (20, 40, 60)


def test_tone_and_grain(atlas: GlyphAtlas) -> None:
    toned = paint(replace(plain(""), brightness=10.0, contrast=0.5), atlas)
    assert tuple(toned[10, 10]) == (119, 119, 119)
    grained = paint(replace(plain(""), noise=4.0), atlas)
    assert 3.5 < grained[500:].std() < 4.5
    assert np.array_equal(grained, paint(replace(plain(""), noise=4.0), atlas))


@pytest.mark.parametrize("style", list(Style))
def test_every_background_lies_between_its_colours(atlas: GlyphAtlas, style: Style) -> None:
    ground = paint(plain("", style=style), atlas)[430:]
    assert ground.min() >= 90 and (ground[..., 0] <= 200).all()
    assert len(np.unique(ground[..., 0])) > 1 or style is Style.FLAT


def test_with_texts_keeps_the_look_and_leaves_out_signs_without_text(atlas: GlyphAtlas) -> None:
    look = sample_scene(random.Random(1), atlas, ["12", "lemon"], [["7", "left"], "9"])
    shown = look.with_texts("lemon", ("left",))
    assert (shown.board.run.text, [sign.run.text for sign in shown.signs]) == ("lemon", ["left"])
    assert shown.board.box == look.board.box and shown.background == look.background
    assert look.with_texts("12").signs == ()


@pytest.mark.parametrize("heldout", [False, True])
def test_looks_hold_all_their_texts_apart_and_readable(atlas: GlyphAtlas, heldout: bool) -> None:
    rng, styles, fonts = random.Random(8), set(), set()
    for _ in range(80):
        boards, signs = ["7", "WWMMWWMM", "jug"], [["4", "Window"], ["MWMWMWMW", "1"]]
        look = sample_scene(rng, atlas, boards, signs, heldout=heldout)
        styles.add(look.background.style)
        panels = [look.board, *look.signs]
        fonts |= {panel.run.font for panel in panels}
        for panel in panels:
            box = panel_region(panel)
            assert 0 <= box.x0 < box.x1 <= 1280 and 0 <= box.y0 < box.y1 <= 720
            assert abs(_luma(panel.fill) - _luma(panel.run.colour)) > 79
            assert all(box.iou(panel_region(other)) == 0 for other in panels if other is not panel)
        for texts in [(board, ("4", "1")) for board in boards] + [("", ("Window", "MWMWMWMW"))]:
            scene = look.with_texts(*texts)
            for panel in (scene.board, *scene.signs):
                ink, box = run_region(panel.run, atlas), panel_region(panel)
                if panel.run.text:
                    assert box.x0 <= ink.x0 and ink.x1 <= box.x1 and box.y0 <= ink.y0 and ink.y1 <= box.y1
        assert sign_region(look, 1, atlas).height * THUMBNAIL_SCALE < 7
    assert styles <= set(HELDOUT_STYLES) if heldout else not styles & set(HELDOUT_STYLES)
    assert fonts <= set(atlas.choose(heldout=heldout))
    assert len(styles) >= 3


def test_boards_can_be_read_in_a_thumbnail_and_signs_cannot() -> None:
    assert BOARD_CAP_PX[0] * THUMBNAIL_SCALE > 21
    assert SIGN_CAP_PX[1] * THUMBNAIL_SCALE < 5


def test_same_seed_gives_the_same_scene(atlas: GlyphAtlas) -> None:
    one, two = (sample_scene(random.Random(5), atlas, "12", ("on",)) for _ in range(2))
    assert one == two


def _luma(colour: tuple[int, int, int]) -> float:
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
