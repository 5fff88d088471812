"""Turns a scene into pixels on a CPU: antialiased, 1280 x 720 in some milliseconds."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from keyeloop.tools.demo_video.glyphs import BASELINE, CAP_PX, ROWS, GlyphAtlas
from keyeloop.tools.demo_video.pattern import Points, mix
from keyeloop.tools.demo_video.scene import Background, Panel, Scene, Shape, ShapeKind, Style, TextRun

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

GRAIN_SEED = 20
_SUBPIXEL_BITS = 4


def paint(scene: Scene, atlas: GlyphAtlas) -> Pixels:
    """Paint a frame: uint8 RGB ``[height, width, 3]``. The same scene gives the same pixels."""
    canvas = _ground(scene)
    for shape in scene.shapes:
        _shape(canvas, scene, shape)
    for panel in (scene.board, *scene.signs):
        _panel(canvas, scene, panel)
        _text(canvas, scene, panel.run, atlas)
    return _grained(canvas, scene.noise) if scene.noise > 0 else canvas


def sharpness(cap_px: float) -> float:
    """How much steeper than in the atlas the edge of an enlarged letter is painted."""
    return max(cap_px / CAP_PX, 1.0)


def _ground(scene: Scene) -> Pixels:
    ground = scene.background
    first, second = scene.toned(ground.first), scene.toned(ground.second)
    if ground.style is Style.FLAT:
        canvas = np.empty((scene.height, scene.width, 3), np.uint8)
        canvas[:] = first
        return canvas
    share = np.rint(_mix(ground, scene.width, scene.height) * 255).astype(np.uint8)
    ramp = np.linspace(0, 1, 256, dtype=np.float32)[:, None]
    table = np.rint(np.array(first) * (1 - ramp) + np.array(second) * ramp).astype(np.uint8)
    return np.asarray(cv2.LUT(cv2.merge([share, share, share]), table[None]), np.uint8)


def _mix(ground: Background, width: int, height: int) -> Floats:
    at = Points(
        np.arange(width, dtype=np.float32)[None] + np.float32(0.5),
        np.arange(height, dtype=np.float32)[:, None] + np.float32(0.5),
        np.float32(1),
        width,
        height,
    )
    parameters = (np.float32(value) for value in (ground.angle_rad, ground.period_px, ground.phase, ground.share))
    share: Floats = mix(np, ground.style, at, *parameters)
    return share


def _shape(canvas: Pixels, scene: Scene, shape: Shape) -> None:
    colour = scene.toned(shape.colour)
    if shape.kind is ShapeKind.ELLIPSE:
        around = np.linspace(0, 2 * np.pi, 73)[:-1]
        corners = np.stack([np.cos(around) * shape.half_width, np.sin(around) * shape.half_height], 1)
    else:
        half = (shape.half_width - 0.5, shape.half_height - 0.5)
        corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], float) * half
    cos, sin = np.cos(shape.angle_rad), np.sin(shape.angle_rad)
    turned = corners @ np.array([(cos, sin), (-sin, cos)]) + (shape.x - 0.5, shape.y - 0.5)
    points = np.rint(turned * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    cv2.fillPoly(canvas, [points], colour, cv2.LINE_AA, _SUBPIXEL_BITS)


def _panel(canvas: Pixels, scene: Scene, panel: Panel) -> None:
    x0, y0, x1, y1 = panel.box
    if panel.border_px:
        canvas[max(y0, 0) : y1, max(x0, 0) : x1] = scene.toned(panel.border)
    x0, y0, x1, y1 = x0 + panel.border_px, y0 + panel.border_px, x1 - panel.border_px, y1 - panel.border_px
    canvas[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = scene.toned(panel.fill)


def _text(canvas: Pixels, scene: Scene, run: TextRun, atlas: GlyphAtlas) -> None:
    line = atlas.line(run.text, run.font, run.spacing)
    if not line.width:
        return
    scale = run.cap_px / CAP_PX
    left = run.x - line.width * scale / 2
    top = run.y + run.cap_px / 2 - BASELINE * scale
    x0, y0 = max(int(np.floor(left)) - 1, 0), max(int(np.floor(top)) - 1, 0)
    x1 = min(int(np.ceil(left + line.width * scale)) + 1, scene.width)
    y1 = min(int(np.ceil(top + ROWS * scale)) + 1, scene.height)
    if x0 >= x1 or y0 >= y1:
        return
    mask = atlas.strip(line)
    if scale >= 1:
        place = np.array([[scale, 0, left - x0 + scale / 2 - 0.5], [0, scale, top - y0 + scale / 2 - 0.5]])
        alpha = cv2.warpAffine(mask, place, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR).astype(np.int16)
        alpha = np.clip((alpha - 128) * np.float32(sharpness(run.cap_px)) + 128, 0, 255).astype(np.uint8)
    else:
        across = averaging((np.arange(x0, x1 + 1) - left) / scale, line.width)
        down = averaging((np.arange(y0, y1 + 1) - top) / scale, ROWS)
        alpha = np.rint(down @ mask.astype(np.float32) @ across.T).astype(np.uint8)
    window = canvas[y0:y1, x0:x1]
    blend = cv2.merge([alpha, alpha, alpha])
    colour = np.empty_like(window)
    colour[:] = scene.toned(run.colour)
    inked = cv2.multiply(colour, blend, scale=1 / 255)
    window[:] = cv2.add(inked, cv2.multiply(window, cv2.bitwise_not(blend), scale=1 / 255))


def averaging(edges: npt.NDArray[np.floating], length: int) -> Floats:
    """Weights ``[pixels, length]`` that average linearly interpolated samples over the spans between ``edges``.

    ``edges`` are in sample units, sample ``i`` lying at ``i + 0.5``; beyond the samples there is nothing.
    """
    offset = np.clip(edges[:, None] - np.arange(length)[None] - 0.5, -1, 1)
    integral = offset - 0.5 * offset * np.abs(offset)
    weights: Floats = (np.diff(integral, axis=0) / np.diff(edges)[:, None]).astype(np.float32)
    return weights


def _grained(canvas: Pixels, noise: float) -> Pixels:
    """Add grey grain, one and the same for every frame of a look so that a still picture stays still."""
    tile = np.random.default_rng(GRAIN_SEED).standard_normal((256, 256)) * noise
    height, width = canvas.shape[:2]
    up, down = (
        np.tile(np.clip(np.rint(side), 0, 255).astype(np.uint8)[..., None], (-(-height // 256), -(-width // 256), 3))
        for side in (tile, -tile)
    )
    return np.asarray(cv2.subtract(cv2.add(canvas, up[:height, :width]), down[:height, :width]), np.uint8)
