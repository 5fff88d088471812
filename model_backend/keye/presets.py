"""The two shapes this project knows by heart."""

from __future__ import annotations

from keyeloop.model_backend.keye.config import IndexerConfig, KeyeConfig, SpecialTokens, VisionConfig

KEYE_30B = "keye-vl-2.0-30b-a3b"
KEYE_TINY = "keye-tiny"


def keye_30b() -> KeyeConfig:
    """Keye-VL-2.0-30B-A3B as published (31,122,082,160 parameters)."""
    return KeyeConfig(
        hidden_size=2048, num_hidden_layers=48, num_attention_heads=32, num_key_value_heads=4, head_dim=128,
        moe_intermediate_size=768, num_experts=128, num_experts_per_tok=8, vocab_size=151936,
        rope_theta=1e7, mrope_section=(16, 24, 24), max_position_embeddings=262144,
        indexer=IndexerConfig(num_heads=16, head_dim=64, topk=2048),
        vision=VisionConfig(hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16,
                            image_size=384, patch_size=14),
        tokens=SpecialTokens(image=151655, video=151656, vision_start=151652, vision_end=151653, fast_video=151678),
    )  # fmt: skip


def keye_tiny(vocab_size: int, tokens: SpecialTokens) -> KeyeConfig:
    """The embedded model's shape; vocabulary and special ids come from its tokenizer."""
    return KeyeConfig(
        hidden_size=256, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=2, head_dim=32,
        moe_intermediate_size=192, num_experts=8, num_experts_per_tok=2, vocab_size=vocab_size,
        rope_theta=1e4, mrope_section=(4, 6, 6), max_position_embeddings=32768,
        indexer=IndexerConfig(num_heads=4, head_dim=64, topk=64),
        vision=VisionConfig(hidden_size=192, intermediate_size=768, num_hidden_layers=6, num_attention_heads=6,
                            image_size=224, patch_size=14, packing_positions=0),
        tokens=tokens,
    )  # fmt: skip
