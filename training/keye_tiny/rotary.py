"""Rotary positions of the training network: three axes in contiguous sections, for decoder and indexer."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from training.keye_tiny.shape import TinyShape


class Rope(NamedTuple):
    """Cosines and sines of one batch, half the rotated width each: decoder [B, T, 16], indexer [B, T, 32]."""

    cos: Tensor
    sin: Tensor
    index_cos: Tensor
    index_sin: Tensor


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding in the half-split (neox) layout; ``cos`` and ``sin`` broadcast to half of ``x``."""
    left, right = x.chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1)


@lru_cache(maxsize=64)
def _axis_frequencies(dim: int, theta: float, sections: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    axis = torch.repeat_interleave(torch.arange(len(sections)), torch.tensor(sections))
    inverse = theta ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    return axis.to(device), inverse.float().to(device)


def rope_of(positions: Tensor, shape: TinyShape) -> Rope:
    """Rotations of ``positions`` [3, B, T] (time, row, column): contiguous sections take their axis."""
    tables: list[Tensor] = []
    for dim, sections in ((shape.head_dim, shape.mrope_section), (shape.index_dim, shape.index_section)):
        axis, inverse = _axis_frequencies(dim, shape.rope_theta, tuple(sections), positions.device)
        angles = (positions.float()[axis].permute(1, 2, 0) * inverse).contiguous()
        tables += [angles.cos(), angles.sin()]
    return Rope(*tables)
