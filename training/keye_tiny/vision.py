"""The vision tower and projector for batches of pictures, patches in merge order so that merging is a reshape.

Attention inside a picture does not care in which order its patches stand as long as each brings its own position, so
the 2 x 2 patches of one token are kept together from the start. Pictures of one grid run as they are; other grids are
padded to ``LARGEST`` patches and masked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.keye_tiny.rotary import rotate
from training.keye_tiny.shape import TinyShape


class VisionAttention(nn.Module):
    def __init__(self, shape: TinyShape) -> None:
        super().__init__()
        self.heads = shape.vision_heads
        width = shape.vision_width
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(q.float(), cos, sin).to(v.dtype), rotate(k.float(), cos, sin).to(v.dtype)
        if mask is not None:
            mask = mask[:, None, None, :].expand(-1, 1, x.shape[1], -1)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        found: Tensor = self.out_proj(out.transpose(1, 2).flatten(-2))
        return found


class VisionMLP(nn.Module):
    def __init__(self, shape: TinyShape) -> None:
        super().__init__()
        self.fc1 = nn.Linear(shape.vision_width, shape.vision_ffn)
        self.fc2 = nn.Linear(shape.vision_ffn, shape.vision_width)


class VisionLayer(nn.Module):
    def __init__(self, shape: TinyShape) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(shape.vision_width, eps=1e-6)
        self.self_attn = VisionAttention(shape)
        self.layer_norm2 = nn.LayerNorm(shape.vision_width, eps=1e-6)
        self.mlp = VisionMLP(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x), cos, sin, mask).float()
        inner = F.gelu(self.mlp.fc1(self.layer_norm2(x)), approximate="tanh")
        found: Tensor = x + self.mlp.fc2(inner).float()
        return found


def run_vision_layer(layer: VisionLayer, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
    """One vision layer as a free function, so that all layers share one compiled graph."""
    found: Tensor = layer(x, cos, sin, mask)
    return found


class Embeddings(nn.Module):
    def __init__(self, shape: TinyShape) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, shape.vision_width, shape.patch, stride=shape.patch)
        self.position_embedding = nn.Embedding(shape.table_side**2, shape.vision_width)
        if shape.packing_rows:
            self.packing_position_embedding = nn.Embedding(shape.packing_rows, shape.vision_width)


class Encoder(nn.Module):
    def __init__(self, shape: TinyShape) -> None:
        super().__init__()
        self.layers = nn.ModuleList(VisionLayer(shape) for _ in range(shape.vision_layers))


class VisionModel(nn.Module):
    def __init__(self, shape: TinyShape) -> None:
        super().__init__()
        self.embeddings = Embeddings(shape)
        self.encoder = Encoder(shape)
        self.post_layernorm = nn.LayerNorm(shape.vision_width, eps=1e-6)


class Visual(nn.Module):
    """Vision tower; ``step`` may be replaced by a compiled :func:`run_vision_layer`."""

    def __init__(self, shape: TinyShape) -> None:
        super().__init__()
        self.vision_model = VisionModel(shape)
        self.step: Callable[..., Any] = run_vision_layer

    def forward(self, patches: Tensor, weights: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        """Features [N, L, width] of ``patches`` [N, L, 588] scaled to [-1, 1].

        ``weights`` [L or N x L, table] interpolates the position table; ``cos``/``sin`` broadcast to [N, heads, L, 16].
        """
        parts = self.vision_model
        kernel = parts.embeddings.patch_embedding
        x = F.linear(patches, kernel.weight.flatten(1), kernel.bias).float()
        x = x + torch.matmul(weights, parts.embeddings.position_embedding.weight).float()
        for layer in parts.encoder.layers:
            x = self.step(layer, x, cos, sin, mask)
        found: Tensor = parts.post_layernorm(x)
        return found


class Projector(nn.Module):
    """Merges 2 x 2 patches into one token of the decoder's width."""

    def __init__(self, shape: TinyShape) -> None:
        super().__init__()
        width = shape.vision_width * shape.merge**2
        self.pre_norm = nn.LayerNorm(width, eps=1e-5)
        self.linear_1 = nn.Linear(width, width)
        self.linear_2 = nn.Linear(width, shape.hidden)

    def forward(self, features: Tensor) -> Tensor:
        """Tokens [N, L/4, hidden] of features [N, L, width] whose patches stand in merge order."""
        merged = features.reshape(features.shape[0], -1, self.pre_norm.normalized_shape[0])
        found: Tensor = self.linear_2(F.gelu(self.linear_1(self.pre_norm(merged))))
        return found


def to_patches(pixels: Tensor, shape: TinyShape) -> Tensor:
    """Patches [N, L, 588] uint8, in merge order, of pictures [N, h, w, 3] uint8; sides are multiples of 28."""
    count, height, width, _ = pixels.shape
    side, merge = shape.patch, shape.merge
    rows, columns = height // (side * merge), width // (side * merge)
    cut = pixels.view(count, rows, merge, side, columns, merge, side, 3)
    return cut.permute(0, 1, 4, 2, 5, 7, 3, 6).reshape(count, rows * columns * merge**2, 3 * side * side)


class GridTables:
    """Position interpolation and rope of each picture size, cached on one device, patches in merge order."""

    def __init__(self, shape: TinyShape, device: torch.device) -> None:
        self._shape, self._device = shape, device
        self._known: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor]] = {}

    def of(self, height_px: int, width_px: int) -> tuple[Tensor, Tensor, Tensor]:
        """Weights [L, table], cosines and sines [L, head_dim / 2] of one picture size."""
        key = (height_px, width_px)
        if key not in self._known:
            self._known[key] = self._make(height_px // self._shape.patch, width_px // self._shape.patch)
        return self._known[key]

    def _make(self, rows: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
        shape = self._shape
        table, merge = shape.table_side, shape.merge
        basis = torch.eye(table * table).view(table * table, 1, table, table)
        spread = F.interpolate(basis, size=(rows, columns), mode="bilinear", align_corners=False)
        place = torch.arange(rows * columns).view(rows // merge, merge, columns // merge, merge)
        order = place.permute(0, 2, 1, 3).flatten()
        weights = spread.flatten(1).t()[order]
        quarter = shape.vision_width // shape.vision_heads // 4
        inverse = 1e4 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
        angles = torch.cat(((order // columns)[:, None] * inverse, (order % columns)[:, None] * inverse), dim=1)
        return (
            weights.to(self._device),
            angles.cos().float().to(self._device),
            angles.sin().float().to(self._device),
        )
