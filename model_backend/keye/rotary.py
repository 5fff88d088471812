"""Rotary positions: three axes in contiguous sections for the decoder and its indexer, two for the vision tower.

All are neox style: the angle of frequency ``i`` turns dimensions ``i`` and ``i + D/2``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rotation:
    """``cos`` and signed ``sin``, [T, 1, D], that :func:`rotate` applies to [T, heads, D]."""

    cos: Tensor
    sin: Tensor


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn ``x`` [..., D] by broadcastable tables: ``x * cos + (-x2, x1) * sin``, with the sign kept in the table."""
    return torch.addcmul(x * rotation.cos, x.roll(x.shape[-1] // 2, -1), rotation.sin)


class SectionedRotary:
    """Multimodal rope: frequencies ``theta^(-2i/D)``, each driven by the time, height or width position of its section.

    Several (dimension, sections) pairs share one angle computation, one rotation each. Tables are computed in float32
    (float64 for a float64 model) whatever the model's type. Source: ``mrope_section`` of the published config; sections
    are contiguous, not interleaved.
    """

    def __init__(self, theta: float, shapes: Sequence[tuple[int, Sequence[int]]]) -> None:
        """``shapes``: (head size D, sections summing to D/2) for each rotation."""
        host = torch.device("cpu")
        self._halves = [dim // 2 for dim, _ in shapes]
        inverse = [theta ** (-torch.arange(0, dim, 2, dtype=torch.float64, device=host) / dim) for dim, _ in shapes]
        axes = [axis for _, sections in shapes for axis, size in enumerate(sections) for _ in range(size)]
        self._inverse = torch.cat(inverse)
        self._axes = torch.tensor(axes, device=host)

    def __call__(self, positions: Tensor, dtype: torch.dtype) -> tuple[Rotation, ...]:
        """Rotations for ``positions`` [3, T], in ``dtype`` on their device."""
        exact = torch.float64 if dtype == torch.float64 else torch.float32
        axes = self._axes.to(positions.device, non_blocking=True)
        inverse = self._inverse.to(positions.device, exact, non_blocking=True)
        angles = positions.to(exact).index_select(0, axes).t() * inverse
        cos, sin = angles.cos().to(dtype).unsqueeze(1), angles.sin().to(dtype).unsqueeze(1)
        pairs = zip(torch.split(cos, self._halves, -1), torch.split(sin, self._halves, -1), strict=True)
        return tuple(Rotation(torch.cat((c, c), -1), torch.cat((-s, s), -1)) for c, s in pairs)


def grid_rotation(height: int, width: int, head_dim: int, theta: float, like: Tensor) -> Rotation:
    """2-D rope of a raster of ``height`` x ``width`` patches: half the angles follow the row, half the column.

    Returns tables [N, 1, head_dim] in float32 or wider on ``like``'s device. Source: SigLIPRotaryEmbedding of Keye's
    vision tower, with dimension ``head_dim / 2`` for each axis.
    """
    exact = torch.promote_types(like.dtype, torch.float32)
    quarter = torch.arange(0, head_dim // 2, 2, dtype=torch.float64, device=like.device) / (head_dim // 2)
    inverse = (theta**-quarter).to(exact)
    rows = torch.arange(height, device=like.device, dtype=exact).repeat_interleave(width)
    columns = torch.arange(width, device=like.device, dtype=exact).repeat(height)
    angles = torch.cat((rows[:, None] * inverse, columns[:, None] * inverse), -1).unsqueeze(1)
    cos, sin = angles.cos(), angles.sin()
    return Rotation(torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1))
