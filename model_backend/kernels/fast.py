"""The operations on Triton: what is launched, over how many queries at once, into which memory."""

from __future__ import annotations

import torch
from torch import Tensor

from keyeloop.model_backend.kernels.index_keys import FP8, IndexKeys
from keyeloop.model_backend.kernels.jit import attention, rounding, union_attention
from keyeloop.model_backend.kernels.selecting import ONE_EACH_TOKENS
from keyeloop.model_backend.kernels.selecting_few import select as select

UNION_TOKENS = 512
"""Fewer queries than these make too few blocks to keep a GPU busy: each gathers its own keys."""


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


def sparse_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    slot_table: Tensor,
    query_row: Tensor,
    positions: Tensor,
    scale: float,
    max_tokens: int | None = None,
    one_each: bool | None = None,
) -> Tensor:
    """See :func:`keyeloop.model_backend.kernels.ops.sparse_attention`."""
    tokens = q.shape[0]
    one_each = tokens <= ONE_EACH_TOKENS if one_each is None else one_each
    if one_each or tokens < UNION_TOKENS:
        return attention.sparse_attention(q, k_cache, v_cache, slot_table, query_row, positions, scale)
    return union_attention.prefill_attention(q, k_cache, v_cache, slot_table, query_row, positions, scale, max_tokens)
