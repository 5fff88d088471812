"""Small models for the tests of Keye's architecture."""

from __future__ import annotations

from dataclasses import replace

import torch

from keyeloop.model_backend.keye.config import IndexerConfig, KeyeConfig, SpecialTokens, VisionConfig
from keyeloop.model_backend.keye.decoder import Attention
from keyeloop.model_backend.keye.model import KeyeModel

SMALL = KeyeConfig(
    hidden_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
    moe_intermediate_size=12, num_experts=5, num_experts_per_tok=2, vocab_size=40,
    rope_theta=1e4, mrope_section=(2, 3, 3), max_position_embeddings=4096,
    indexer=IndexerConfig(num_heads=3, head_dim=32, topk=6, query_chunk=512),
    vision=VisionConfig(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2,
                        image_size=70, patch_size=14, packing_positions=7),
    tokens=SpecialTokens(image=30, video=31, vision_start=32, vision_end=33),
)  # fmt: skip


def small_model(
    dtype: torch.dtype = torch.float64, seed: int = 0, *, topk: int = 6, query_chunk: int = 512
) -> KeyeModel:
    """A random model whose norms and biases are random too, so that a forgotten one shows."""
    torch.manual_seed(seed)
    indexer = replace(SMALL.indexer, topk=topk, query_chunk=query_chunk)
    model = KeyeModel(replace(SMALL, indexer=indexer)).to(dtype).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def attention(model: KeyeModel, layer: int = 0) -> Attention:
    """One layer's attention, typed."""
    found = model.get_submodule(f"model.layers.{layer}.self_attn")
    assert isinstance(found, Attention)
    return found


def random_prompt(model: KeyeModel, tokens: int, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings [T, hidden] and ascending positions [3, T] whose axes differ."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(tokens, model.config.hidden_size, generator=generator, dtype=torch.float64)
    positions = torch.randint(0, 3, (3, tokens), generator=generator).cumsum(1)
    return embeddings.to(model.dtype), positions
