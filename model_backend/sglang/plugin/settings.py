"""What a Keye server starts with, and what it refuses to start with."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from keyeloop.model_backend.keye.indexer import IndexerMode
from keyeloop.runtime.errors import ConfigError

BACKEND = "keye_sa"
"""The attention backend's name, as in the official fork."""
INDEXER = "KEYELOOP_INDEXER"
"""Environment variable that chooses the indexer's number format: ``exact`` (as trained) or ``fp8`` (as shipped)."""

_ON: tuple[tuple[str, str], ...] = (
    ("enable_hierarchical_cache", "hierarchical cache (HiCache): index keys would not move with their keys and values"),
    ("enable_lmcache", "LMCache: index keys would not move with their keys and values"),
    ("enable_hisparse", "hierarchical sparse attention: it is another model's"),
    ("enable_dp_attention", "data-parallel attention: use --tp-size, or one server a GPU"),
    ("enable_two_batch_overlap", "two-batch overlap"),
    ("enable_pdmux", "prefill/decode multiplexing"),
    ("enable_unified_memory", "the unified memory pool: it has no place for index keys"),
    ("enable_page_major_kv_layout", "page-major cache layout: it has no place for index keys"),
)
_OTHER_THAN: tuple[tuple[str, tuple[Any, ...], str], ...] = (
    ("disaggregation_mode", ("null", None), "prefill/decode disaggregation: index keys would not be transferred"),
    ("speculative_algorithm", (None,), "speculative decoding: Keye has no draft head"),
    ("pp_size", (1,), "pipeline parallelism: use --tp-size"),
    ("attn_cp_size", (1, None), "context parallelism: use --tp-size"),
    ("dcp_size", (1, None), "context parallelism: use --tp-size"),
    ("kv_cache_dtype", ("auto", "bf16", "bfloat16"), "a quantised key/value cache: leave --kv-cache-dtype out"),
    ("prefill_attention_backend", (None, BACKEND), "another attention backend: it would attend densely"),
    ("decode_attention_backend", (None, BACKEND), "another attention backend: it would attend densely"),
    # 0.5.17 puts intel_amx there by itself on a CPU; what is declared here takes its place
    ("attention_backend", (None, BACKEND, "intel_amx"), "another attention backend: it would attend densely"),
)


def indexer_mode() -> IndexerMode:
    """The indexer's number format for this server. Raises ConfigError for an unknown one."""
    wanted = os.environ.get(INDEXER, "exact")
    if wanted not in ("exact", "fp8"):
        raise ConfigError(f"{INDEXER}={wanted}: unknown; one of exact, fp8")
    return "fp8" if wanted == "fp8" else "exact"


def keye_settings(server_args: Any, hf_config: Any) -> dict[str, Any]:
    """SGLang's settings for Keye, from the arguments of the command line.

    Raises ConfigError that names every argument this plugin does not support: a server that ignored it would answer
    wrongly.
    """
    refused = _refused(server_args)
    if refused:
        raise ConfigError("keyeloop's Keye plugin does not support " + "; nor ".join(refused))
    chosen: dict[str, Any] = {"attention_backend": BACKEND}
    if getattr(server_args, "page_size", None) is None:
        chosen["page_size"] = 1
    return chosen


def _refused(server_args: Any) -> list[str]:
    def flag(name: str) -> str:
        return "--" + name.replace("_", "-")

    get: Callable[..., Any] = getattr
    on = [f"{flag(name)} ({why})" for name, why in _ON if get(server_args, name, False)]
    other = [
        f"{flag(name)} {get(server_args, name)} ({why})"
        for name, allowed, why in _OTHER_THAN
        if get(server_args, name, allowed[0]) not in allowed
    ]
    return on + other
