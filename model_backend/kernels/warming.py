"""Compiles the Triton kernels that serving will launch, before a request waits for them."""

from __future__ import annotations

import logging
import time

import torch
from torch import Tensor

from keyeloop.model_backend.kernels import ops
from keyeloop.model_backend.kernels.index_keys import IndexKeys

QUERIES = ((1, True), (64, True), (16, False), (64, False), (300, False))
"""Numbers of queries, and whether each is of another request: every way in which work is shared among programs."""
WIDTHS = (1, 16, 9000)
"""Tokens beyond ``topk`` that the longest request has: few enough for one program, and more."""
logger = logging.getLogger(__name__)


def compile_ahead(
    index_k: IndexKeys, k_cache: Tensor, v_cache: Tensor, slot_table: Tensor, *, heads: int, index_heads: int, topk: int
) -> float:
    """Run every operation on rows of padding, in the memory that will be served; gives the seconds that it took.

    Shapes are those of :mod:`~keyeloop.model_backend.kernels.ops`: ``heads`` query heads, ``index_heads`` heads of the
    indexer. Writes zeros under slot 0 of the index keys, which must be nobody's yet, and nothing else.
    """
    began_s = time.perf_counter()
    device, dtype, dim = k_cache.device, k_cache.dtype, index_k.values.shape[1]
    key, slot = torch.zeros(1, dim, dtype=dtype, device=device), torch.zeros(1, dtype=torch.int64, device=device)
    ops.store_index_keys(index_k, key, slot)
    for tokens, one_each in QUERIES:
        rows = torch.zeros(tokens, dtype=torch.int32, device=device)
        padding = rows - 1
        asked = torch.zeros(tokens, index_heads, dim, dtype=dtype, device=device)
        gates = torch.zeros(tokens, index_heads, dtype=torch.float32, device=device)
        index_q, weights = ops.index_queries(asked, gates, index_k.mode)
        for beyond in WIDTHS:
            places = ops.select(
                index_q, weights, index_k, slot_table, rows, padding, topk, max_tokens=topk + beyond, one_each=one_each
            )
        q = torch.zeros(tokens, heads, k_cache.shape[2], dtype=dtype, device=device)
        ops.sparse_attention(q, k_cache, v_cache, slot_table, rows, places, 1.0)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    took_s = time.perf_counter() - began_s
    logger.info("sparse attention compiled in %.1f s", took_s)
    return took_s
