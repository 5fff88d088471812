"""The sizes of keye-tiny."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TinyShape:
    """Every size of the decoder, the indexer, the vision tower and the projector."""

    vocab_size: int = 384
    hidden: int = 256
    layers: int = 8
    heads: int = 8
    kv_heads: int = 2
    head_dim: int = 32
    experts: int = 8
    experts_per_token: int = 2
    expert_width: int = 192
    rope_theta: float = 1e4
    mrope_section: tuple[int, int, int] = (4, 6, 6)
    norm_eps: float = 1e-6
    index_heads: int = 4
    index_dim: int = 64
    topk: int = 64
    vision_layers: int = 6
    vision_width: int = 192
    vision_heads: int = 6
    vision_ffn: int = 768
    patch: int = 14
    image_size: int = 224
    merge: int = 2
    packing_rows: int = 0
    """Rows of the unused ``packing_position_embedding``; 0 leaves it out."""

    @property
    def table_side(self) -> int:
        """Side of the learned grid of patch positions."""
        return self.image_size // self.patch

    @property
    def index_section(self) -> tuple[int, ...]:
        """Rope sections of the indexer: the decoder's, scaled to its head size (`reference` B.3)."""
        return tuple(part * self.index_dim // self.head_dim for part in self.mrope_section)
