"""Compiles the kernels that serving will launch, before a request waits for them."""

from __future__ import annotations

import logging
import time

import torch
from torch import Tensor

from keyeloop.model_backend.kernels import ops
from keyeloop.model_backend.kernels.glue import Norms, Projected, prepare
from keyeloop.model_backend.kernels.index_keys import IndexKeys
from keyeloop.model_backend.keye.rotary import Rotation

QUERIES = ((1, True), (64, True), (16, False), (64, False), (300, False), (600, False))
"""Numbers of queries, and whether each is of another request: every way in which work is shared among programs."""
WIDTHS = (1, 16, 9000)
"""Tokens beyond ``topk`` that the longest request has: few enough for one program, and more."""
LONG_TOKENS, LONG_WIDTHS = 1024, (65536, 65552, 131088)
"""Queries of long prompts, and tokens of those whose selection keeps no scores, by each size of their samples."""
logger = logging.getLogger(__name__)


def compile_ahead(
    index_k: IndexKeys, k_cache: Tensor, v_cache: Tensor, slot_table: Tensor, *, heads: int, index_heads: int, topk: int
) -> float:
    """Run every operation on rows of padding, in the memory that will be served; gives the seconds that it took.

    Shapes are those of :mod:`~keyeloop.model_backend.kernels.ops`: ``heads`` query heads, ``index_heads`` heads of the
    indexer. Writes to none of this memory.
    """
    began_s = time.perf_counter()
    device, dtype, dim = k_cache.device, k_cache.dtype, index_k.values.shape[1]
    _prepare_one(index_k, k_cache, v_cache, heads, index_heads)
    rounds = [(tokens, one_each, tuple(topk + beyond for beyond in WIDTHS)) for tokens, one_each in QUERIES]
    longer = LONG_WIDTHS if slot_table.shape[1] >= LONG_WIDTHS[0] else ()
    rounds.append((LONG_TOKENS, False, (topk + WIDTHS[-1], *longer)))
    for tokens, one_each, widths in rounds:
        rows = torch.zeros(tokens, dtype=torch.int32, device=device)
        padding = rows - 1
        asked = torch.zeros(tokens, index_heads, dim, dtype=dtype, device=device)
        gates = torch.zeros(tokens, index_heads, dtype=torch.float32, device=device)
        index_q, weights = ops.index_queries(asked, gates, index_k.mode)
        for width in widths:
            places = ops.select(
                index_q, weights, index_k, slot_table, rows, padding, topk, max_tokens=width, one_each=one_each
            )
        q = torch.zeros(tokens, heads, k_cache.shape[2], dtype=dtype, device=device)
        ops.sparse_attention(q, k_cache, v_cache, slot_table, rows, places, 1.0)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    took_s = time.perf_counter() - began_s
    logger.info("sparse attention compiled in %.1f s", took_s)
    return took_s


def _prepare_one(index_k: IndexKeys, k_cache: Tensor, v_cache: Tensor, heads: int, index_heads: int) -> None:
    """One token's way into memory like this, with and without index queries."""
    (_, kv_heads, dim), index_dim = k_cache.shape, index_k.values.shape[1]

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(*shape, dtype=k_cache.dtype, device=k_cache.device)

    kept = IndexKeys.zeros(1, index_dim, index_k.mode, index_k.values.dtype, k_cache.device)
    main, index = (Rotation(zeros(1, 1, size), zeros(1, 1, size)) for size in (dim, index_dim))
    norms = Norms(zeros(dim), zeros(dim), zeros(index_dim), zeros(index_dim), zeros(index_dim), 1e-6, 1e-6)
    slot = torch.zeros(1, dtype=torch.int64, device=k_cache.device)
    widths = [(heads + 2 * kv_heads) * dim, index_heads * (index_dim + 1), index_dim]
    qkv, index_q, key = torch.split(zeros(1, sum(widths)), widths, 1)
    for asked in (index_q, None):
        prepare(Projected(qkv, asked, key), norms, main, index, k_cache[:1].clone(), v_cache[:1].clone(), kept, slot)
