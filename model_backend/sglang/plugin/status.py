"""What a Keye server says of itself in ``/server_info``: that sparse attention runs, and how."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from keyeloop.model_backend.kernels.cuda import compiled
from keyeloop.model_backend.kernels.ops import choose
from keyeloop.model_backend.sglang.plugin.backend import KeyeSparseBackend
from keyeloop.model_backend.sglang.plugin.config import keye_config
from keyeloop.model_backend.sglang.plugin.media import media_facts
from keyeloop.model_backend.sglang.plugin.pool import KeyePool


def status_of(runner: Any) -> dict[str, Any]:
    """Read from the running objects, not from settings. ``sparse`` is true only where the whole path is in place."""
    config, pool = keye_config(runner.model_config.hf_config), runner.token_to_kv_pool
    whole = isinstance(runner.attn_backend, KeyeSparseBackend) and isinstance(pool, KeyePool)
    who = choose(pool.k_buffer[0].device)
    return {
        "sparse": whole,
        "indexer": pool.mode if whole else None,
        "topk": config.indexer.topk,
        "indexer_heads": config.indexer.num_heads,
        "indexer_head_dim": config.indexer.head_dim,
        "rope_theta": config.rope_theta,
        "mrope_section": list(config.mrope_section),
        "kernels": "cuda" if who == "triton" and compiled.wanted() else who,
        "weights": runner.model.weights_from,
        "pictures_encoded": runner.model.encoding.told(),
        "layers": runner.model_config.num_hidden_layers,
        "index_cache_bytes": pool.index_bytes() if whole else 0,
        **media_facts(config),
        "versions": {name: metadata.version(name) for name in ("keyeloop", "sglang", "torch")},
    }
