"""Selection for the few queries of a small decoding batch: launches cost more there than what they compute."""

from __future__ import annotations

import torch
from torch import Tensor

from keyeloop.model_backend.kernels import selecting
from keyeloop.model_backend.kernels.index_keys import IndexKeys
from keyeloop.model_backend.kernels.jit import few
from keyeloop.model_backend.kernels.jit import scores as scoring


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
    zeros: Tensor | None = None,
) -> Tensor:
    """See :func:`keyeloop.model_backend.kernels.ops.select`; what is not few goes to :mod:`selecting`."""
    given = (index_q, index_weight, index_k, slot_table, query_row, query_position, topk)
    tokens, width = len(index_q), slot_table.shape[1] if max_tokens is None else min(slot_table.shape[1], max_tokens)
    if one_each is False or not tokens or width <= few.ROOM or not few.fits(tokens, topk):
        return selecting.select(*given, max_tokens, one_each)
    out = torch.empty(tokens, topk, dtype=torch.int32, device=index_q.device)
    scores = torch.empty(tokens, -(-width // 16) * 16, dtype=torch.float32, device=index_q.device)
    scoring.scores(*given, scores, one_each=True)
    few.top_positions(scores, query_position, topk, out, zeros)
    return out
