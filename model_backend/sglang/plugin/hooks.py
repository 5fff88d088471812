"""What the plugin changes in SGLang: a backend, a model's defaults, and five functions of SGLang's own.

The pool, its byte budget and the status depend on each other so that none can be missing unseen: a pool is built only
where its index keys were counted in the budget, the backend takes no other pool, and the model no other backend.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from keyeloop.model_backend.sglang.plugin import ARCHITECTURE
from keyeloop.model_backend.sglang.plugin.random_weights import DUMMY, fill_randomly
from keyeloop.model_backend.sglang.plugin.settings import BACKEND, indexer_mode, keye_settings
from keyeloop.model_backend.sglang.plugin.spelling import add_attention_backend_choices, register_model_override
from keyeloop.runtime.errors import ConfigError

POOL = "sglang.srt.mem_cache.kv_cache_configurator.KVCacheConfigurator._build_mha_kv_pool"
BUDGET = "sglang.srt.model_executor.pool_configurator.DefaultPoolConfigurator._compute_cell_size"
STATUS = "sglang.srt.managers.scheduler.Scheduler.get_internal_state"
TRITON = "sglang.srt.utils.common.support_triton"
_COUNTED = "keyeloop_index_bytes_per_token"
"""Attribute of SGLang's model configuration: what the budget counted for index keys."""


def register_hooks() -> None:
    """Register everything with SGLang; it is applied when all plugins are loaded."""
    from sglang.srt.layers.attention.attention_registry import register_attention_backend
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    add_attention_backend_choices([BACKEND])
    register_attention_backend(BACKEND)(_backend)
    register_model_override(ARCHITECTURE)(keye_settings)
    HookRegistry.register(BUDGET, count_index_keys, HookType.AFTER)
    HookRegistry.register(POOL, build_keye_pool, HookType.AROUND)
    HookRegistry.register(STATUS, add_status, HookType.AFTER)
    HookRegistry.register(TRITON, without_triton, HookType.AFTER)
    HookRegistry.register(DUMMY, fill_randomly, HookType.AROUND)


def count_index_keys(cell_bytes: int, _: Any, configurator: Any, num_layers: int) -> int | None:
    """Bytes that one token takes in the cache, index keys included; None (as it was) for other models."""
    if not _is_keye(configurator):
        return None
    from keyeloop.model_backend.kernels.index_keys import bytes_per_token
    from keyeloop.model_backend.sglang.plugin.config import keye_config

    dim = keye_config(configurator.model_config.hf_config).indexer.head_dim
    index_bytes = num_layers * bytes_per_token(dim, indexer_mode(), configurator.model_config.dtype)
    setattr(configurator.model_config, _COUNTED, index_bytes)
    return cell_bytes + index_bytes


def build_keye_pool(original: Callable[..., Any], configurator: Any, **settings: Any) -> Any:
    """The pool with index keys where Keye is served. Raises ConfigError where its bytes were not counted."""
    if not _is_keye(configurator):
        return original(configurator, **settings)
    from keyeloop.model_backend.sglang.plugin.config import keye_config
    from keyeloop.model_backend.sglang.plugin.pool import KeyePool

    if getattr(configurator.model_config, _COUNTED, None) is None:
        raise ConfigError(f"keyeloop's plugin did not reach {BUDGET}: index keys are not in the memory budget; "
                          "this version of SGLang is not supported")  # fmt: skip
    config = keye_config(configurator.model_config.hf_config)
    settings["mha_pool_class"] = partial(
        KeyePool, index_dim=config.indexer.head_dim, mode=indexer_mode(), index_dtype=configurator.model_config.dtype
    )
    return original(configurator, **settings)


def add_status(answer: Any, scheduler: Any, *_: Any) -> None:
    """Put ``keyeloop`` into what ``/server_info`` says of every scheduler."""
    runner = scheduler.tp_worker.model_runner
    if not _is_keye(runner):
        return
    try:
        from keyeloop.model_backend.sglang.plugin.status import status_of

        told = status_of(runner)
    except Exception as problem:  # SGLang ends a server whose status fails; this one may still compute rightly
        told = {"sparse": False, "problem": f"{type(problem).__name__}: {problem}"}
    answer.internal_state["keyeloop"] = told


def without_triton(_: bool, backend: str) -> bool | None:
    """Keep SGLang's bookkeeping off Triton where there is no GPU; it tells that by the backend's name alone."""
    import torch

    return False if backend == BACKEND and not torch.cuda.is_available() else None


def _backend(runner: Any) -> Any:
    from keyeloop.model_backend.sglang.plugin.backend import KeyeSparseBackend

    return KeyeSparseBackend(runner)


def _is_keye(holder: Any) -> bool:
    return ARCHITECTURE in (getattr(holder.model_config.hf_config, "architectures", None) or ())
