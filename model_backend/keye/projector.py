"""From vision features to the decoder: 2 x 2 neighbouring patches become one token."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from keyeloop.model_backend.keye.config import KeyeConfig


class Projector(nn.Module):
    """``mlp_AR``: merge, LayerNorm over the merged features (eps 1e-5), linear, exact GELU, linear."""

    def __init__(self, config: KeyeConfig) -> None:
        super().__init__()
        self.merge = config.vision.spatial_merge_size
        merged = config.vision.hidden_size * self.merge**2
        self.pre_norm = nn.LayerNorm(merged, eps=1e-5)
        self.linear_1 = nn.Linear(merged, merged)
        self.linear_2 = nn.Linear(merged, config.hidden_size)

    def forward(self, features: Tensor, height: int, width: int) -> Tensor:
        """[B, height x width, vision hidden] to [B, height x width / 4, hidden], raster order kept.

        A token's channels are (row in block, column in block, feature).
        """
        side = self.merge
        blocks = features.view(features.shape[0], height // side, side, width // side, side, -1)
        merged = blocks.transpose(2, 3).reshape(features.shape[0], (height // side) * (width // side), -1)
        return self.linear_2(F.gelu(self.linear_1(self.pre_norm(merged))))  # type: ignore[no-any-return]
