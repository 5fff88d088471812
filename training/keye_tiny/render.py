"""Renders packed frames of board videos in batches, on a GPU or a CPU, with the geometry of the painter.

A frame that is shrunk is computed at its final size, every edge averaged over a pixel's footprint. A frame that is
enlarged is computed at source size and interpolated, as the video tools do it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from keyeloop.tools.demo_video.glyphs import ROWS, GlyphAtlas
from keyeloop.tools.demo_video.pattern import Points, mix
from keyeloop.tools.demo_video.scene import Style
from training.keye_tiny import packing
from training.keye_tiny.codec import imitate, jpeg
from training.keye_tiny.packing import Packed, pack, stack

__all__ = ["BatchRenderer", "pack", "stack"]

SOURCE_WIDTH, SOURCE_HEIGHT = 1280, 720
CHUNK_PIXELS = 256 * 252 * 140
"""Pixels rendered at once; bounds the memory of the temporaries to a few GiB."""


class BatchRenderer:
    """Holds an atlas's letters on a device and turns packed frames into pixels."""

    def __init__(
        self,
        atlas: GlyphAtlas,
        device: torch.device | str,
        *,
        generator: torch.Generator | None = None,
        chunk_pixels: int = CHUNK_PIXELS,
    ) -> None:
        self.device = torch.device(device)
        self._generator, self._chunk_pixels = generator, chunk_pixels
        columns = torch.from_numpy(atlas.columns)
        self._columns = torch.cat([columns, columns.new_zeros(1, ROWS)]).to(self.device)

    @torch.no_grad()
    def render(self, packed: Packed, height: int, width: int, *, degrade: bool = True) -> Tensor:
        """Pixels uint8 ``[n, height, width, 3]`` of frames packed with this renderer's atlas, in their order.

        ``degrade`` passes them through the imitated codec and the media store's JPEG, at a random quality each.
        """
        box = packed[:, packing.REGION]
        shrinks = (box[:, 2] - box[:, 0] >= width) & (box[:, 3] - box[:, 1] >= height)
        out = torch.empty(len(packed), height, width, 3, dtype=torch.uint8, device=self.device)
        for shrunk in (True, False):
            rows = np.flatnonzero(shrinks == shrunk)
            step = max(1, self._chunk_pixels // (height * width))
            for start in range(0, len(rows), step):
                part = rows[start : start + step]
                frames = self._frames(packed[part], height, width, shrunk, degrade)
                frames = jpeg(frames) if degrade else frames.clamp(0, 255).round()
                out[self._index(part)] = frames.permute(0, 2, 3, 1).to(torch.uint8)
        return out

    def _frames(self, packed: Packed, height: int, width: int, shrunk: bool, degrade: bool) -> Tensor:
        data = torch.from_numpy(packed).to(self.device, non_blocking=True)
        box = data[:, packing.REGION]
        size = box[:, 2:] - box[:, :2]
        if shrunk:
            canvas_width, canvas_height = width, height
            step = size / torch.tensor([width, height], device=self.device)
        else:
            wanted = packed[:, 2:4] - packed[:, :2]
            canvas_width, canvas_height = (int(side) for side in wanted.max(0))
            step = torch.ones_like(size)
        across = box[:, :1] + torch.arange(canvas_width + 1, device=self.device) * step[:, :1]
        down = box[:, 1:2] + torch.arange(canvas_height + 1, device=self.device) * step[:, 1:]
        canvas = self._canvas(packed, data, across, down, step)
        if degrade:
            canvas = imitate(canvas, step.amax(1), box[:, :2], self._generator)
        if shrunk:
            return canvas
        canvas = canvas.clamp(0, 255).round()
        rows, columns = _cubic(size[:, 1], height, canvas_height), _cubic(size[:, 0], width, canvas_width)
        return rows[:, None] @ canvas @ columns.transpose(1, 2)[:, None]

    def _canvas(self, packed: Packed, data: Tensor, across: Tensor, down: Tensor, step: Tensor) -> Tensor:
        """Clean frames ``[n, 3, height, width]``; ``across`` and ``down`` are pixel edges in source pixels."""
        canvas = self._ground(packed, data, across, down, step)
        self._shapes(canvas, packed, data, across, down, step)
        for slot in range(2 * packing.PANELS):
            self._rectangle(canvas, packed, data, across, down, slot)
        for slot in range(packing.PANELS):
            self._text(canvas, packed, data, across, down, step, slot)
        loud = np.flatnonzero(packed[:, packing.NOISE] > 0)
        if loud.size:
            rows = self._index(loud)
            strength = data[rows, packing.NOISE] / step[rows].prod(1).sqrt()
            shape = (len(loud), 1, *canvas.shape[2:])
            grain = torch.randn(shape, device=self.device, generator=self._generator)
            canvas[rows] += grain * strength[:, None, None, None]
        return canvas

    def _ground(self, packed: Packed, data: Tensor, across: Tensor, down: Tensor, step: Tensor) -> Tensor:
        height, width = down.shape[1] - 1, across.shape[1] - 1
        share = torch.zeros(len(packed), height, width, device=self.device)
        styles = packed[:, packing.STYLE].astype(np.int64)
        for style in np.unique(styles):
            rows = self._index(np.flatnonzero(styles == style))
            at = Points(
                x=(across[rows, None, :-1] + across[rows, None, 1:]) / 2,
                y=(down[rows, :-1, None] + down[rows, 1:, None]) / 2,
                footprint=step[rows].amax(1)[:, None, None],
                width=SOURCE_WIDTH,
                height=SOURCE_HEIGHT,
            )
            parameters = (value[:, None, None] for value in data[rows, packing.PATTERN].unbind(1))
            share[rows] = mix(torch, Style(int(style)), at, *parameters)
        colours = data[:, packing.COLOURS].view(-1, 2, 3, 1, 1)
        return torch.lerp(colours[:, 0], colours[:, 1], share[:, None])

    def _shapes(self, canvas: Tensor, packed: Packed, data: Tensor, across: Tensor, down: Tensor, step: Tensor) -> None:
        for slot in range(packing.SHAPES):
            first = packing.FIRST_SHAPE + slot * packing.SHAPE_FIELDS
            used = np.flatnonzero(packed[:, first] > 0)
            if not used.size:
                return
            rows = self._index(used)
            fields = data[rows, first : first + packing.SHAPE_FIELDS, None, None]
            kind, x, y, half_width, half_height, cos, sin = fields[:, :7].unbind(1)
            over = (across[rows, None, :-1] + across[rows, None, 1:]) / 2 - x
            under = (down[rows, :-1, None] + down[rows, 1:, None]) / 2 - y
            one, two = over * cos + under * sin, under * cos - over * sin
            footprint = step[rows].amax(1)[:, None, None]
            box = _inside(one, half_width, footprint) * _inside(two, half_height, footprint)
            radius = torch.sqrt((one / half_width) ** 2 + (two / half_height) ** 2)
            slope = torch.sqrt((one / half_width**2) ** 2 + (two / half_height**2) ** 2) / radius.clamp(min=1e-3)
            round_ = ((1 - radius) / (slope.clamp(min=1e-6) * footprint) + 0.5).clamp(0, 1)
            _cover(canvas, rows, torch.where(kind > 1.5, box, round_), fields[:, 7:])

    def _rectangle(self, canvas: Tensor, packed: Packed, data: Tensor, across: Tensor, down: Tensor, slot: int) -> None:
        first = packing.FIRST_RECTANGLE + slot * packing.RECTANGLE_FIELDS
        used = np.flatnonzero(packed[:, first + 2] > packed[:, first])
        if not used.size:
            return
        rows = self._index(used)
        fields = data[rows, first : first + packing.RECTANGLE_FIELDS]
        over = _overlap(across[rows], fields[:, 0:1], fields[:, 2:3])
        under = _overlap(down[rows], fields[:, 1:2], fields[:, 3:4])
        _cover(canvas, rows, under[:, :, None] * over[:, None], fields[:, 4:, None, None])

    def _text(
        self, canvas: Tensor, packed: Packed, data: Tensor, across: Tensor, down: Tensor, step: Tensor, slot: int
    ) -> None:
        first = packing.FIRST_RUN + slot * packing.RUN_FIELDS
        box, run = packed[:, packing.REGION], packed[:, first : first + packing.RUN_FIELDS]
        right, bottom = run[:, 0] + run[:, 2] * run[:, 3], run[:, 1] + run[:, 2] * ROWS
        seen = (run[:, 0] < box[:, 2]) & (right > box[:, 0]) & (run[:, 1] < box[:, 3]) & (bottom > box[:, 1])
        used = np.flatnonzero((run[:, 3] > 0) & seen)
        if not used.size:
            return
        rows = self._index(used)
        strip = self._strip(data[rows], slot, int(run[used, 3].max()))
        left, top, scale, _, sharp = data[rows, first : first + 5].unbind(1)
        wide = _averaging((across[rows] - left[:, None]) / scale[:, None], strip.shape[1])
        high = _averaging((down[rows] - top[:, None]) / scale[:, None], ROWS)
        if self.device.type == "cuda":
            strip, wide, high = strip.half(), wide.half(), high.half()
        else:
            strip = strip.float()
        alpha = (high @ (wide @ strip).transpose(1, 2)).float() / 255
        steeper = torch.maximum(sharp / step[rows].amax(1), torch.ones_like(sharp))[:, None, None]
        alpha = ((alpha - 0.5) * steeper + 0.5).clamp_(0, 1)
        _cover(canvas, rows, alpha, data[rows, first + 5 : first + 8, None, None])

    def _strip(self, data: Tensor, slot: int, width: int) -> Tensor:
        """Alpha of whole lines, uint8 ``[n, columns, 96]``: even and odd letters apart, then the larger of both."""
        place = torch.arange(-(-width // 32) * 32, device=self.device)[None]
        blank = len(self._columns) - 1
        layers = [torch.full((len(data), place.shape[1]), blank, device=self.device) for _ in range(2)]
        first = packing.FIRST_GLYPH + slot * packing.GLYPHS * packing.GLYPH_FIELDS
        for index in range(packing.GLYPHS):
            at = first + index * packing.GLYPH_FIELDS
            column, x, span = data[:, at : at + packing.GLYPH_FIELDS].long()[..., None].unbind(1)
            inside = (place >= x) & (place < x + span)
            layers[index % 2] = torch.where(inside, column + place - x, layers[index % 2])
        return torch.maximum(self._columns[layers[0]], self._columns[layers[1]])

    def _index(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(rows).to(self.device, non_blocking=True)


def _cover(canvas: Tensor, rows: Tensor, alpha: Tensor, colour: Tensor) -> None:
    """Blend ``colour`` ``[m, 3, 1, 1]`` over some rows of the canvas by ``alpha`` ``[m, height, width]``."""
    if len(rows) == len(canvas):
        canvas.copy_(torch.lerp(canvas, colour, alpha[:, None]))
    else:
        canvas[rows] = torch.lerp(canvas[rows], colour.expand(-1, -1, *canvas.shape[2:]), alpha[:, None])


def _inside(distance: Tensor, half: Tensor, footprint: Tensor) -> Tensor:
    covered = torch.minimum(distance + footprint / 2, half) - torch.maximum(distance - footprint / 2, -half)
    return (covered / footprint).clamp(0, 1)


def _overlap(edges: Tensor, low: Tensor, high: Tensor) -> Tensor:
    covered = torch.minimum(edges[:, 1:], high) - torch.maximum(edges[:, :-1], low)
    return covered.clamp(min=0) / (edges[:, 1:] - edges[:, :-1])


def _averaging(edges: Tensor, length: int) -> Tensor:
    """As :func:`keyeloop.tools.demo_video.paint.averaging`, batched: ``[n, pixels, length]``."""
    samples = torch.arange(length, device=edges.device) + 0.5
    offset = (edges[:, :, None] - samples).clamp_(-1, 1)
    integral = offset - 0.5 * offset * offset.abs()
    return (integral[:, 1:] - integral[:, :-1]) / (edges[:, 1:] - edges[:, :-1])[:, :, None]


def _cubic(sizes: Tensor, length: int, longest: int) -> Tensor:
    """Weights ``[n, length, longest]`` that enlarge the first ``sizes`` samples, as OpenCV's INTER_CUBIC does."""
    place = torch.arange(length, device=sizes.device)
    centre = (place + 0.5) * (sizes[:, None] / length) - 0.5
    whole = torch.floor(centre)
    part = centre - whole
    weights = torch.zeros(len(sizes), length, longest, device=sizes.device)
    for offset, weight in ((-1, _far(1 + part)), (0, _near(part)), (1, _near(1 - part)), (2, _far(2 - part))):
        source = torch.minimum((whole + offset).clamp(min=0), sizes[:, None] - 1).long()
        weights.scatter_add_(2, source[..., None], weight[..., None])
    return weights


def _near(distance: Tensor) -> Tensor:
    """The cubic kernel of OpenCV (a = -0.75) up to one sample away."""
    return (1.25 * distance - 2.25) * distance * distance + 1


def _far(distance: Tensor) -> Tensor:
    """The same from one to two samples away."""
    return ((-0.75 * distance + 3.75) * distance - 6) * distance + 3
