"""Rope tables on the model's device, without a copy from the host, so that CUDA graphs can capture them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from keyeloop.model_backend.keye.config import KeyeConfig
from keyeloop.model_backend.keye.rotary import Rotation


class Rotary(nn.Module):
    """Rotations of attention and indexer for one forward pass: :class:`keye.rotary.SectionedRotary` for serving."""

    inverse: Tensor
    axes: Tensor

    def __init__(self, config: KeyeConfig) -> None:
        super().__init__()
        shapes = ((config.head_dim, config.mrope_section), (config.indexer.head_dim, config.index_mrope_section))
        self._halves = [dim // 2 for dim, _ in shapes]
        inverse = [config.rope_theta ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim) for dim, _ in shapes]
        axes = [axis for _, sections in shapes for axis, size in enumerate(sections) for _ in range(size)]
        self.register_buffer("inverse", torch.cat(inverse).float(), persistent=False)
        self.register_buffer("axes", torch.tensor(axes), persistent=False)

    def forward(self, positions: Tensor, dtype: torch.dtype) -> tuple[Rotation, Rotation]:
        """Main and index rotation of ``positions`` [3, T] (or [T], all axes alike), computed in float32."""
        if positions.ndim == 1:
            positions = positions.expand(3, -1)
        angles = positions.float().index_select(0, self.axes).t() * self.inverse
        cos, sin = angles.cos().to(dtype).unsqueeze(1), angles.sin().to(dtype).unsqueeze(1)
        pairs = zip(torch.split(cos, self._halves, -1), torch.split(sin, self._halves, -1), strict=True)
        main, index = (Rotation(torch.cat((c, c), -1), torch.cat((-s, s), -1)) for c, s in pairs)
        return main, index
