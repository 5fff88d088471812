"""Measured imitation of what pictures go through between a scene and the model: H.264 in 4:2:0, and JPEG.

Everything is float32 in 0 to 255, RGB, ``[n, 3, height, width]``. The JPEG part computes what a real encoder does; the
H.264 part quantises 8 x 8 blocks at a random strength, which leaves the same kind of error near edges.
"""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

QUALITY = 95
QUANTISER_STEPS = (2.0, 26.0)
"""Strength of the H.264 part in levels, for source pixels: from about crf 18 to crf 32 on board videos."""
TRUNCATION = 0.5
"""Mean loss of a level in each direction: FFmpeg's colour conversion cuts off where it might round."""
PLAIN_SHARE = 0.1
"""Frames that the H.264 part leaves as they are."""
_LUMA = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
_CHROMA = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99,
    47, 66, 99, 99, 99, 99, 99, 99, *([99] * 32),
)  # fmt: skip
"""Annex K of ITU-T T.81, in raster order."""


def imitate(frames: Tensor, footprint: Tensor, origin: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Frames as a decoder of H.264 would give them, at a random quality each.

    ``footprint`` ``[n]`` is how many source pixels one pixel averages along a side: averaging shrinks the error.
    ``origin`` ``[n, 2]`` is the source pixel (x, y) of the first pixel: where it is 1:1, colour is shared by pairs of
    source pixels.
    """
    count = len(frames)
    draw = torch.rand(count, 2, device=frames.device, generator=generator)
    low, high = QUANTISER_STEPS
    step = low * (high / low) ** draw[:, 0] / footprint
    step = torch.where(draw[:, 1] < PLAIN_SHARE, torch.full_like(step, 0.25), step)
    video = _to_ycc(frames)
    video = torch.cat([video[:, :1], _paired(video[:, 1:], origin, footprint)], 1)
    scale = torch.tensor([219.0, 224.0, 224.0], device=frames.device).view(1, 3, 1, 1) / 255
    table = step.view(-1, 1, 1, 1, 1, 1).expand(-1, 3, 1, 1, 1, 1)
    coded = _through_blocks(video, table, keep=0.38)
    truncated = torch.tensor([TRUNCATION, 0.0, 0.0], device=frames.device).view(1, 3, 1, 1)
    return _to_rgb((coded * scale - truncated).round() / scale) - TRUNCATION


def jpeg(frames: Tensor) -> Tensor:
    """Frames as they come back from the media store: JPEG of quality 95 without colour subsampling, whole levels."""
    tables = _tables(frames.device).view(1, 3, 1, 8, 1, 8)
    coded = _through_blocks(_to_ycc(frames.clamp(0, 255).round()).round(), tables, keep=0.5).round()
    return _to_rgb(coded.clamp(0, 255)).round_().clamp_(0, 255)


def _to_ycc(frames: Tensor) -> Tensor:
    red, green, blue = frames.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return torch.stack([luma, (blue - luma) / 1.772 + 128, (red - luma) / 1.402 + 128], 1)


def _to_rgb(frames: Tensor) -> Tensor:
    luma, blue, red = frames[:, 0], frames[:, 1] - 128, frames[:, 2] - 128
    return torch.stack([luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue], 1)


def _paired(chroma: Tensor, origin: Tensor, footprint: Tensor) -> Tensor:
    """Chroma averaged over 2 x 2 source pixels where a pixel is one source pixel."""
    single = footprint < 1.5
    for axis, length in ((3, chroma.shape[3]), (2, chroma.shape[2])):
        place = torch.arange(length, device=chroma.device)[None]
        odd = (origin[:, 0 if axis == 3 else 1].long()[:, None] + place) % 2
        partner = torch.where(single[:, None], place + 1 - 2 * odd, place).clamp(0, length - 1)
        shape = (-1, 1, 1, length) if axis == 3 else (-1, 1, length, 1)
        chroma = (chroma + chroma.gather(axis, partner.view(shape).expand(chroma.shape))) / 2
    return chroma


def _through_blocks(frames: Tensor, table: Tensor, *, keep: float) -> Tensor:
    """Quantise 8 x 8 blocks with steps of ``table``; a coefficient rounds up from ``1 - keep`` of a step."""
    count, channels, height, width = frames.shape
    high, wide = -(-height // 8), -(-width // 8)
    padded = F.pad(frames, (0, wide * 8 - width, 0, high * 8 - height), mode="replicate")
    basis = _basis(frames.device)
    blocks = (padded - 128).view(count, channels, high, 8, wide, 8)
    spectrum = torch.einsum("ncaybx,uy,vx->ncaubv", blocks, basis, basis)
    scaled = spectrum / table
    whole = torch.sign(scaled) * torch.floor(scaled.abs() + keep) * table
    back = torch.einsum("ncaubv,uy,vx->ncaybx", whole, basis, basis)
    return back.reshape(count, channels, high * 8, wide * 8)[:, :, :height, :width] + 128


@cache
def _basis(device: torch.device) -> Tensor:
    """Orthonormal DCT-II, ``[frequency, sample]``."""
    rows = [[math.cos(math.pi * (2 * x + 1) * u / 16) / 2 for x in range(8)] for u in range(8)]
    rows[0] = [math.sqrt(1 / 8)] * 8
    return torch.tensor(rows, device=device)


@cache
def _tables(device: torch.device) -> Tensor:
    factor = 200 - 2 * QUALITY
    rows = [[max(1, (value * factor + 50) // 100) for value in table] for table in (_LUMA, _CHROMA, _CHROMA)]
    return torch.tensor(rows, dtype=torch.float32, device=device).view(3, 8, 8)
