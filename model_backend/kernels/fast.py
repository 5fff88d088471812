"""The operations on Triton: what is launched, over how many queries at once, into which memory."""

from __future__ import annotations

import torch
from torch import Tensor

from keyeloop.model_backend.kernels.index_keys import FP8, IndexKeys
from keyeloop.model_backend.kernels.jit import rounding
from keyeloop.model_backend.kernels.jit.attention import sparse_attention as sparse_attention
from keyeloop.model_backend.kernels.selecting import select as select


def store_index_keys(index_k: IndexKeys, keys: Tensor, slots: Tensor) -> None:
    """See :func:`keyeloop.model_backend.kernels.ops.store_index_keys`."""
    keys = keys if keys.stride(-1) == 1 else keys.contiguous()
    if index_k.scales is None:
        rounding.store_exact(index_k.values, keys, slots)
    else:
        rounding.store_rounded(index_k.values, index_k.scales, keys, slots)


def round_queries(heads: Tensor, gates: Tensor) -> tuple[Tensor, Tensor]:
    """Mode fp8 of :func:`keyeloop.model_backend.kernels.ops.index_queries`."""
    tokens, count, dim = heads.shape
    values = torch.empty(tokens * count, dim, dtype=torch.uint8, device=heads.device).view(FP8)
    scales = torch.empty(tokens * count, dtype=torch.float32, device=heads.device)
    rounding.store_rounded(values, scales, heads.reshape(-1, dim), None)
    return values.view(tokens, count, dim), gates.float() * scales.view(tokens, count)
