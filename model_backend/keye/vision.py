"""Vision tower: patches of 14 x 14 pixels at any resolution, each picture attending to itself only.

Pre-norm SigLIP layers; the learned position table is stretched to the picture's grid, and 2-D rope is added in every
layer. Frames of a clip never see each other here. Source: SigLIP (arXiv 2303.15343) at native resolution.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from keyeloop.model_backend.keye.config import VisionConfig
from keyeloop.model_backend.keye.rotary import Rotation, grid_rotation, rotate


class Embeddings(nn.Module):
    """Patch projection and position tables."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.grid = config.grid
        patch = config.patch_size
        self.patch_embedding = nn.Conv2d(config.num_channels, config.hidden_size, patch, stride=patch)
        self.position_embedding = nn.Embedding(config.grid**2, config.hidden_size)
        if config.packing_positions:
            self.packing_position_embedding = nn.Embedding(config.packing_positions, config.hidden_size)

    def forward(self, patches: Tensor, height: int, width: int) -> Tensor:
        """``patches`` [B, N, 3 x 14 x 14] in raster order to [B, N, hidden]; N = height x width patches."""
        embedded = F.linear(patches, self.patch_embedding.weight.flatten(1), self.patch_embedding.bias)
        return embedded + self.positions(height, width)

    def positions(self, height: int, width: int) -> Tensor:
        """The learned table resampled to the grid, bilinear with half-pixel centres: [N, hidden]."""
        weight = self.position_embedding.weight
        table = weight.t().reshape(1, -1, self.grid, self.grid)
        if (height, width) != (self.grid, self.grid):
            table = F.interpolate(table, size=(height, width), mode="bilinear", align_corners=False)
        return table.flatten(2).squeeze(0).t()


class VisionAttention(nn.Module):
    """Full attention inside each picture."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.heads = config.num_attention_heads
        self.q_proj = nn.Linear(hidden, hidden)
        self.k_proj = nn.Linear(hidden, hidden)
        self.v_proj = nn.Linear(hidden, hidden)
        self.out_proj = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor, rotation: Rotation) -> Tensor:
        """``x`` [B, N, hidden]; rope is applied in float32 or wider, whatever the model's type."""
        batch, patches, hidden = x.shape
        shape = (batch, patches, self.heads, hidden // self.heads)
        exact = rotation.cos.dtype
        q = rotate(self.q_proj(x).view(shape).to(exact), rotation).to(x.dtype)
        k = rotate(self.k_proj(x).view(shape).to(exact), rotation).to(x.dtype)
        v = self.v_proj(x).view(shape)
        out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return self.out_proj(out.transpose(1, 2).reshape(batch, patches, hidden))  # type: ignore[no-any-return]


class VisionMlp(nn.Module):
    """Two linear layers around a tanh-approximated GELU."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [..., hidden]."""
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))  # type: ignore[no-any-return]


class VisionLayer(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = VisionAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = VisionMlp(config)

    def forward(self, x: Tensor, rotation: Rotation) -> Tensor:
        """``x`` [B, N, hidden]."""
        x = x + self.self_attn(self.layer_norm1(x), rotation)
        return x + self.mlp(self.layer_norm2(x))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """The stack of vision layers."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(VisionLayer(config) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor, rotation: Rotation) -> Tensor:
        """``x`` [B, N, hidden]."""
        for layer in self.layers:
            x = layer(x, rotation)
        return x


class VisionModel(nn.Module):
    """Embeddings, encoder and final norm; there is no pooling head."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.head_dim, self.theta = config.head_dim, config.rope_theta
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, patches: Tensor, height: int, width: int) -> Tensor:
        """Features [B, N, hidden] of B pictures of one size: ``patches`` [B, N, 3 x 14 x 14] in raster order."""
        rotation = grid_rotation(height, width, self.head_dim, self.theta, patches)
        return self.post_layernorm(self.encoder(self.embeddings(patches, height, width), rotation))  # type: ignore[no-any-return]


class VisionTower(nn.Module):
    """Holds the model under its published name, ``visual.vision_model``."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.vision_model = VisionModel(config)

    def forward(self, patches: Tensor, height: int, width: int) -> Tensor:
        """See :class:`VisionModel`."""
        return self.vision_model(patches, height, width)  # type: ignore[no-any-return]
