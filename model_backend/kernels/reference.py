"""The kernels in torch, for any device: what the fast ones are tested against, and what a CPU runs.

Same arithmetic as ``keyeloop.model_backend.keye``, with memory addressed through a table of slots. Adjacent queries of
one request are scored together; this reads the rows on the host, except while a CUDA graph is captured.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from keyeloop.model_backend.kernels.index_keys import IndexKeys
from keyeloop.model_backend.keye.indexer import IndexQueries, score, score_bytes
from keyeloop.model_backend.keye.quantise import hadamard, quantise
from keyeloop.model_backend.keye.sparse import rows_at_once

QUERIES_AT_ONCE = 512


def store_index_keys(index_k: IndexKeys, keys: Tensor, slots: Tensor) -> None:
    """Keep ``keys`` [T, D] under ``slots`` [T]; mode fp8 spreads and rounds them first."""
    where = slots.long()
    if index_k.scales is None:
        index_k.values[where] = keys.to(index_k.values.dtype)
        return
    values, scale = quantise(hadamard(keys))
    index_k.values.view(torch.uint8)[where] = values.view(torch.uint8)
    index_k.scales[where] = scale.squeeze(-1)


def round_queries(heads: Tensor, gates: Tensor) -> tuple[Tensor, Tensor]:
    """What mode fp8 asks with: e4m3 queries [T, H, D], and gates [T, H] that carry their scales."""
    values, scale = quantise(hadamard(heads))
    return values, gates.float() * scale.squeeze(-1)


def select(
    index_q: Tensor,
    index_weight: Tensor,
    index_k: IndexKeys,
    slot_table: Tensor,
    query_row: Tensor,
    query_position: Tensor,
    topk: int,
) -> Tensor:
    """See :func:`keyeloop.model_backend.kernels.ops.select`."""
    exact = torch.float32 if index_k.scales is not None else torch.promote_types(index_q.dtype, torch.float32)
    queries = IndexQueries(index_q.to(exact), index_weight.to(exact))
    pieces = []
    if _capturing(index_q):
        width, dim = slot_table.shape[1], index_q.shape[2]
        step = rows_at_once(width * dim * 8, QUERIES_AT_ONCE, index_q.device)
        for first in range(0, index_q.shape[0], step):
            chunk = slice(first, first + step)
            each = _keys(index_k, slot_table[query_row[chunk].long()], exact)
            dots = torch.einsum("thd,tsd->ths", queries.heads[chunk], each).relu_()
            scores = torch.bmm(queries.gates[chunk].unsqueeze(1), dots).squeeze(1)
            pieces.append(top_positions(scores, query_position[chunk] + 1, topk))
    else:
        positions = query_position.tolist()
        for start, stop, row in _runs(query_row.tolist()):
            seen = max(0, max(positions[start:stop]) + 1)
            keys = _keys(index_k, slot_table[row, :seen], exact) if seen > topk else None
            step = rows_at_once(score_bytes(queries, seen), QUERIES_AT_ONCE, index_q.device)
            for first in range(start, stop, step):
                chunk = slice(first, min(first + step, stop))
                if keys is None:
                    pieces.append(_all_positions(query_position[chunk], topk))
                    continue
                scores = score(queries.rows(chunk.start, chunk.stop), keys)
                pieces.append(top_positions(scores, query_position[chunk] + 1, topk))
    empty = torch.empty(0, topk, dtype=torch.int32, device=index_q.device)
    return torch.cat(pieces) if pieces else empty


def top_positions(scores: Tensor, lengths: Tensor, topk: int) -> Tensor:
    """The ``topk`` best of each row's first ``lengths`` [R] scores [R, S]: [R, topk] int32, ascending, -1 where none.

    Ties, and with them -0.0 and 0.0, go to the lowest position; NaN counts as minus infinity.
    """
    places = torch.arange(scores.shape[1], device=scores.device)
    valid = places < lengths.unsqueeze(1)
    scores = torch.where(valid & ~scores.isnan(), scores, -torch.inf)
    if scores.shape[1] > topk:
        boundary = scores.topk(topk, -1, sorted=False).values.amin(-1, keepdim=True)
        above, tied = scores > boundary, (scores == boundary) & valid
        room = topk - above.sum(-1, keepdim=True)
        chosen = above | (tied & (tied.cumsum(-1) <= room))
    else:
        chosen = valid
    column = torch.where(chosen, chosen.cumsum(-1) - 1, topk)
    result = torch.full((scores.shape[0], topk + 1), -1, dtype=torch.int32, device=scores.device)
    return result.scatter_(1, column, places.to(torch.int32).expand_as(column))[:, :topk].contiguous()


def sparse_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    slot_table: Tensor,
    query_row: Tensor,
    positions: Tensor,
    scale: float,
) -> Tensor:
    """See :func:`keyeloop.model_backend.kernels.ops.sparse_attention`."""
    (tokens, heads, dim), (_, kv_heads, _) = q.shape, k_cache.shape
    exact = torch.promote_types(q.dtype, torch.float32)
    out = torch.empty_like(q)
    step = rows_at_once(2 * positions.shape[1] * kv_heads * dim * exact.itemsize, QUERIES_AT_ONCE, q.device)
    for first in range(0, tokens, step):
        chunk = slice(first, first + step)
        chosen = positions[chunk].long()
        slots = slot_table[query_row[chunk].long().unsqueeze(1), chosen.clamp_min(0)].long()
        missing = (chosen < 0).unsqueeze(1).unsqueeze(1)
        keys = k_cache[slots].to(exact).permute(0, 2, 3, 1)
        values = v_cache[slots].to(exact).transpose(1, 2)
        asked = q[chunk].to(exact).reshape(-1, kv_heads, heads // kv_heads, dim) * scale
        weights = torch.softmax((asked @ keys).masked_fill_(missing, -torch.inf), -1)
        attended = (weights.masked_fill_(missing, 0.0) @ values).reshape(-1, heads, dim)
        out[chunk] = attended.to(q.dtype)
    return out


def _keys(index_k: IndexKeys, slots: Tensor, dtype: torch.dtype) -> Tensor:
    where = slots.long()
    if index_k.scales is None:
        return index_k.values[where].to(dtype)
    values = index_k.values.view(torch.uint8)[where].view(index_k.values.dtype)
    return values.to(dtype) * index_k.scales[where].unsqueeze(-1)


def _all_positions(position: Tensor, topk: int) -> Tensor:
    places = torch.arange(topk, dtype=torch.int32, device=position.device)
    return torch.where(places <= position.unsqueeze(1), places, -1).to(torch.int32)


def _runs(rows: list[int]) -> Iterator[tuple[int, int, int]]:
    """Start, stop and row of adjacent queries of one request."""
    start = 0
    for stop in range(1, len(rows) + 1):
        if stop == len(rows) or rows[stop] != rows[start]:
            yield start, stop, rows[start]
            start = stop


def _capturing(tensor: Tensor) -> bool:
    return tensor.is_cuda and torch.cuda.is_current_stream_capturing()
