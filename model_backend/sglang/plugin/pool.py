"""The key/value pool with an index key beside every key and value, under the same slots."""

from __future__ import annotations

from typing import Any

import torch
from sglang.srt.mem_cache.memory_pool import MHATokenToKVPool
from torch import Tensor

from keyeloop.model_backend.kernels.index_keys import IndexKeys
from keyeloop.model_backend.keye.indexer import IndexerMode
from keyeloop.runtime.errors import ConfigError


class KeyePool(MHATokenToKVPool):  # type: ignore[misc]
    """SGLang's pool, and one :class:`IndexKeys` a layer; what SGLang moves or copies takes its index keys along.

    Slots are shared, so the radix cache keeps and frees both at once. Every rank of a tensor-parallel server holds all
    index keys.
    """

    def __init__(self, *args: Any, index_dim: int, mode: IndexerMode, index_dtype: torch.dtype, **kwargs: Any) -> None:
        """``index_dtype`` is the model's type. Raises ConfigError for a pool that grows later: it has no index keys."""
        if kwargs.get("post_capture_active"):
            raise ConfigError("SGLANG_ENABLE_POST_CAPTURE_KV_SIZING is not supported by keyeloop's plugin; unset it")
        super().__init__(*args, **kwargs)
        slots = self.k_buffer[0].shape[0]
        self.mode: IndexerMode = mode
        self.index_keys = [
            IndexKeys.zeros(slots, index_dim, mode, index_dtype, self.device) for _ in range(self.layer_num)
        ]

    def index_of(self, layer_id: int) -> IndexKeys:
        """The index keys of one layer."""
        return self.index_keys[layer_id - int(self.start_layer)]

    def index_bytes(self) -> int:
        """Bytes of all index keys on this device."""
        return sum(tensor.nbytes for keys in self.index_keys for tensor in _tensors(keys))

    def move_kv_cache(self, tgt_loc: Tensor, src_loc: Tensor) -> None:
        """Copy slots ``src_loc`` to ``tgt_loc``."""
        super().move_kv_cache(tgt_loc, src_loc)
        for keys in self.index_keys:
            for tensor in _tensors(keys):
                tensor[tgt_loc] = tensor[src_loc]

    def get_cpu_copy(self, indices: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Slots of a paused request, for :meth:`load_cpu_copy`."""
        index = [[tensor[indices].to("cpu") for tensor in _tensors(keys)] for keys in self.index_keys]
        return super().get_cpu_copy(indices, *args, **kwargs), index

    def load_cpu_copy(self, kv_cache_cpu: Any, indices: Tensor, *args: Any, **kwargs: Any) -> None:
        """Put a paused request's slots back, under new numbers."""
        cache, index = kv_cache_cpu
        super().load_cpu_copy(cache, indices, *args, **kwargs)
        for keys, copies in zip(self.index_keys, index, strict=True):
            for tensor, copy in zip(_tensors(keys), copies, strict=True):
                tensor[indices] = copy.to(tensor.device)

    def _clear_buffers(self) -> None:
        super()._clear_buffers()
        self.index_keys = []


def _tensors(keys: IndexKeys) -> list[Tensor]:
    """Memory of index keys, e4m3 as bytes: few operations know that type."""
    values = keys.values if keys.scales is None else keys.values.view(torch.uint8)
    return [values] if keys.scales is None else [values, keys.scales]
