"""Selection on Triton: by scores in memory or without them, over how many queries at once, in how much memory."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from keyeloop.model_backend.kernels.cuda import compiled
from keyeloop.model_backend.kernels.cuda import scoring as cuda_scoring
from keyeloop.model_backend.kernels.cuda import selection as cuda_selection
from keyeloop.model_backend.kernels.cuda.scoring import Walk
from keyeloop.model_backend.kernels.index_keys import IndexKeys
from keyeloop.model_backend.kernels.jit import fused
from keyeloop.model_backend.kernels.jit import scores as scoring
from keyeloop.model_backend.kernels.jit import topk as selection
from keyeloop.model_backend.kernels.jit.scores import Tile

SCORE_BYTES = 512 << 20
"""Size that the score buffer may have (one query's row at the least); bounds memory, never changes a result."""
QUERIES_AT_ONCE = 8192
"""Bounds what selection counts in."""
FUSED_TOKENS, FUSED_WIDTH = 1024, 65536
"""From so many queries and places on, scores are not kept: :mod:`~keyeloop.model_backend.kernels.jit.fused`."""
FUSED_BYTES = 256 << 20
"""Memory for what is kept instead; bounds how many queries are done at a time."""
ONE_EACH_TOKENS = 128
"""Most queries that are taken for a decoding batch when the caller does not say."""


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
    long = not one_each and tokens >= FUSED_TOKENS and width >= FUSED_WIDTH and selection.gated(topk)
    way = select_fused if long else select_by_parts
    way(index_q, index_weight, index_k, slot_table, query_row, query_position, topk, width, out, one_each=one_each)
    return out


def select_fused(
    index_q: Tensor, index_weight: Tensor, index_k: IndexKeys, slot_table: Tensor, query_row: Tensor,
    query_position: Tensor, topk: int, width: int, out: Tensor, *, one_each: bool = False,
    tile: Tile | Walk | None = None,
) -> None:  # fmt: skip
    """Without scores in memory but those of queries whose gate missed; ``topk`` as :func:`topk.gated` wants it.

    A ``tile`` of Triton's, or a walk of the kernel in CUDA C++, may be asked for.
    """
    room = selection.room_for(topk)
    if tile is None and compiled.wanted() and cuda_scoring.fits(index_q, index_weight, index_k, slot_table, topk):
        tile = Walk()
    each_bytes = cuda_selection.bytes_per_query(width) if isinstance(tile, Walk) else fused.bytes_per_query(width, room)
    most = max(16, FUSED_BYTES // each_bytes // 16 * 16)
    for first in range(0, len(index_q), most):
        part = slice(first, min(first + most, len(index_q)))
        given = (index_q[part], index_weight[part], index_k, slot_table, query_row[part], query_position[part], topk)
        if isinstance(tile, Walk):
            passed = cuda_selection.select(*given, width, out[part], walk=tile)
        else:
            passed = fused.select(*given, room, width, out[part], tile=tile)
        select_by_parts(*given, width, out[part], one_each=one_each, passed=passed)


def select_by_parts(
    index_q: Tensor, index_weight: Tensor, index_k: IndexKeys, slot_table: Tensor, query_row: Tensor,
    query_position: Tensor, topk: int, width: int, out: Tensor, *, one_each: bool, passed: Tensor | None = None,
) -> None:  # fmt: skip
    """Scores in memory, then their top-k; with ``passed`` [T] only of queries for which that says a missed gate."""
    tokens, room = len(index_q), selection.room_for(topk)
    step = max(1, min(QUERIES_AT_ONCE, SCORE_BYTES // (4 * width)))
    step = step if step < 16 else step // 16 * 16
    scores = torch.empty(min(step, tokens), width, dtype=torch.float32, device=index_q.device)
    for first in range(0, tokens, step):
        part = slice(first, min(first + step, tokens))
        positions, some = query_position[part], scores[: part.stop - first]
        missed = None if passed is None else passed[part]
        if width > topk:
            scoring.scores(
                index_q[part], index_weight[part], index_k, slot_table, query_row[part], positions, topk, some,
                one_each=one_each, passed=missed, room=room,
            )  # fmt: skip
        if missed is None:
            selection.top_positions(some, positions, topk, out[part])
        else:
            selection.select(some, positions, missed, topk, room, out[part])
