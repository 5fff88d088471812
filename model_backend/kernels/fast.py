"""The operations on Triton: what is launched, over how many queries at once, into which memory."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from keyeloop.model_backend.kernels.index_keys import FP8, IndexKeys
from keyeloop.model_backend.kernels.jit import rounding
from keyeloop.model_backend.kernels.jit import scores as scoring
from keyeloop.model_backend.kernels.jit import topk as selection
from keyeloop.model_backend.kernels.jit.attention import sparse_attention as sparse_attention

SCORE_BYTES = 512 << 20
"""Size that the score buffer may have (one query's row at the least); bounds memory, never changes a result."""
QUERIES_AT_ONCE = 8192
"""Bounds what selection counts in."""
ONE_EACH_TOKENS = 128
"""Most queries that are taken for a decoding batch when the caller does not say."""


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


def select(
    index_q: Tensor,
    index_weight: Tensor,
    index_k: IndexKeys,
    slot_table: Tensor,
    query_row: Tensor,
    query_position: Tensor,
    topk: int,
    max_tokens: int | None = None,
    one_each: bool | None = None,
) -> Tensor:
    """See :func:`keyeloop.model_backend.kernels.ops.select`."""
    tokens, width = index_q.shape[0], slot_table.shape[1]
    width = triton.cdiv(width if max_tokens is None else max(1, min(width, max_tokens)), 16) * 16
    one_each = tokens <= ONE_EACH_TOKENS if one_each is None else one_each
    out = torch.empty(tokens, topk, dtype=torch.int32, device=index_q.device)
    step = max(1, min(QUERIES_AT_ONCE, SCORE_BYTES // (4 * width)))
    step = step if step < 16 else step // 16 * 16
    scores = torch.empty(min(step, tokens), width, dtype=torch.float32, device=index_q.device)
    for first in range(0, tokens, step):
        part = slice(first, min(first + step, tokens))
        positions = query_position[part]
        room = scores[: part.stop - first]
        if width > topk:
            scoring.scores(
                index_q[part], index_weight[part], index_k, slot_table, query_row[part], positions, topk, room,
                one_each=one_each,
            )  # fmt: skip
        selection.top_positions(room, positions, topk, out[part])
    return out
