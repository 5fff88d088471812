"""How many tokens fit beside the weights, by arithmetic from the configuration alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from keyeloop.model_backend.keye.config import KeyeConfig
from keyeloop.model_backend.keye.describe import BF16_BYTES, ModelDescription
from keyeloop.model_backend.keye.sizing import VIDEO_TOTAL_TOKENS

Quantization = Literal["none", "fp8"]
IndexMode = Literal["exact", "fp8"]
FP8_BYTES, FLOAT32_BYTES = 1, 4
INDEX_SCALE_BYTES = 4
"""Beside every fp8 index key: one float32 a token and layer."""
PAGE_TOKENS = 64
"""Cache is given out in pages of this size, as in the authors' own server."""
DEFAULT_SHARE = 0.85
"""Part of a GPU's free memory for weights, cache and picture embeddings; the rest is for activations and graphs."""
OTHER_PICTURES = 0.25
"""What the picture cache holds beside one whole video, as a share of it."""
MIB = 1 << 20
_QUANTISED = ("experts", "attention")
"""Parts that SGLang's fp8 changes; the router, embeddings, indexer, head and vision tower stay as they are."""
_REPLICATED = ("vision tower", "projector", "indexer", "routers", "norms")
"""Parts of which every GPU of a group holds a copy; key and value heads, experts and vocabulary are split."""


@dataclass(frozen=True)
class Need:
    """Bytes that every GPU of a group needs."""

    weights: int
    loading: int
    """While weights are loaded: SGLang's fp8 is made on the GPU from weights that lie there whole."""
    pictures: int
    """Cache of picture embeddings, so that a second question about a video does not run the vision tower again."""
    token: int
    """Keys, values and index key of one token, all layers."""

    def context(self, usable: int, most_tokens: int) -> int:
        """The largest context that ``usable`` bytes hold, in whole pages and at most ``most_tokens``; 0 for none."""
        if self.loading > usable:
            return 0
        return min(self.cache_tokens(usable), most_tokens // PAGE_TOKENS * PAGE_TOKENS)

    def cache_tokens(self, usable: int) -> int:
        """Tokens of cache, all requests together, in whole pages."""
        free = usable - self.weights - self.pictures
        return max(0, free) // (self.token * PAGE_TOKENS) * PAGE_TOKENS


def need(
    description: ModelDescription,
    *,
    gpus: int = 1,
    quantization: Quantization = "none",
    index: IndexMode = "exact",
    picture_cache_bytes: int | None = None,
    float32: bool = False,
) -> Need:
    """What one of ``gpus`` GPUs needs. ``float32`` is for a CPU, where weights and cache have four bytes a value."""
    width = FLOAT32_BYTES if float32 else BF16_BYTES
    weights = loading = 0
    for part in description.parts:
        parameters = part.parameters if part.name in _REPLICATED else math.ceil(part.parameters / gpus)
        loading += parameters * width
        weights += parameters * (FP8_BYTES if quantization == "fp8" and part.name in _QUANTISED else width)
    config = description.config
    pictures = picture_cache(config, width) if picture_cache_bytes is None else picture_cache_bytes
    return Need(weights, loading, pictures, token_bytes(config, gpus=gpus, index=index, width=width))


def token_bytes(config: KeyeConfig, *, gpus: int = 1, index: IndexMode = "exact", width: int = BF16_BYTES) -> int:
    """Cache bytes of one token on one GPU: 98,304 + 6,144 for the published 30B in bfloat16 on one.

    The index key is on every GPU of a group: in the model's type, or as one e4m3 byte a value and a float32 scale.
    """
    heads = config.num_key_value_heads // gpus
    wide = config.indexer.head_dim
    key = wide * width if index == "exact" else wide + INDEX_SCALE_BYTES
    return config.num_hidden_layers * (2 * heads * config.head_dim * width + key)


def picture_cache(config: KeyeConfig, width: int = BF16_BYTES) -> int:
    """Bytes for the embeddings of one video of the largest budget and a quarter more, in whole MiB.

    SGLang's default of 100 MiB keeps 25,600 tokens of the 30B model: a seventh of such a video.
    """
    tokens = min(VIDEO_TOTAL_TOKENS, config.max_position_embeddings) * (1 + OTHER_PICTURES)
    return math.ceil(tokens * config.hidden_size * width / MIB) * MIB


def groups(config: KeyeConfig) -> tuple[int, ...]:
    """Numbers of GPUs that the model can be split over: they divide its key heads."""
    return tuple(count for count in (1, 2, 4, 8) if config.num_key_value_heads % count == 0)
