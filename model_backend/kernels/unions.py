"""Which places adjacent queries choose together: the lists that prefill attends by, in torch, and how long they are."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor


def unite(positions: Tensor, query_row: Tensor, queries: int) -> list[list[tuple[int, int, int]]]:
    """For every ``queries`` adjacent queries of ``positions`` [T, n]: (row, place, mask) of each place that any chose.

    ``positions`` are distinct, -1 for none; ``query_row`` [T] names their requests. Bit r of a mask is set where query
    r of the block chose the place. Places ascend within a run of queries of one request; runs come one after the other.
    """
    found = []
    places, rows = positions.tolist(), query_row.tolist()
    for first in range(0, len(rows), queries):
        stop = min(first + queries, len(rows))
        block: list[tuple[int, int, int]] = []
        begin = first
        for after in range(first + 1, stop + 1):
            if after < stop and rows[after] == rows[begin]:
                continue
            masks: dict[int, int] = {}
            for query in range(begin, after):
                for place in places[query]:
                    if place >= 0:
                        masks[place] = masks.get(place, 0) | 1 << (query - first)
            block += [(rows[begin], place, masks[place]) for place in sorted(masks)]
            begin = after
        found.append(block)
    return found


def union_sizes(positions: Tensor, queries: int) -> Tensor:
    """Distinct places of every whole block of ``queries`` adjacent rows of ``positions`` [T, n] of one request: [B]."""
    blocks = positions.shape[0] // queries
    ordered = positions[: blocks * queries].reshape(blocks, queries * positions.shape[1]).sort(-1).values
    fresh = ordered[:, :1] >= 0
    later = (ordered[:, 1:] != ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    return fresh.sum(-1) + later.sum(-1)


def mean_overlap(positions: Tensor) -> float:
    """Part of a row's places that the row before chose as well, of all adjacent rows of ``positions`` [T, n]."""
    shared, chosen = 0, 0
    for before, row in pairwise(positions):
        own = row[row >= 0]
        shared, chosen = shared + int(torch.isin(own, before[before >= 0]).sum()), chosen + own.numel()
    return shared / max(1, chosen)


def attend_by_union(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, slot_table: Tensor, query_row: Tensor, positions: Tensor,
    scale: float, queries: int,
) -> Tensor:  # fmt: skip
    """What attention by unions computes, one block at a time: dense over the list, masked to each query's own places.

    Arguments as of :func:`keyeloop.model_backend.kernels.ops.sparse_attention`; computed in the type of ``q``.
    """
    (tokens, heads, _), kv_heads = q.shape, k_cache.shape[1]
    out = torch.zeros_like(q)
    for number, block in enumerate(unite(positions, query_row, queries)):
        if not block:
            continue
        slots = torch.tensor([int(slot_table[row, place]) for row, place, _ in block], device=q.device)
        part = slice(number * queries, min((number + 1) * queries, tokens))
        bits = torch.tensor([mask for _, _, mask in block], device=q.device)
        chose = (bits >> torch.arange(part.stop - part.start, device=q.device).unsqueeze(1)) & 1 == 1
        keys, values = (_each_head(cache[slots].to(q.dtype), heads // kv_heads) for cache in (k_cache, v_cache))
        dots = torch.einsum("qhd,hkd->hqk", q[part], keys) * scale
        weights = torch.softmax(dots.masked_fill(~chose, -torch.inf), -1).masked_fill(~chose, 0.0)
        out[part] = torch.einsum("hqk,hkd->qhd", weights, values)
    return out


def _each_head(cache: Tensor, group: int) -> Tensor:
    return cache.transpose(0, 1).repeat_interleave(group, 0)


def summary(sizes: Sequence[Tensor]) -> tuple[float, float, float]:
    """Median, 90th percentile and maximum of union sizes."""
    every = torch.cat(list(sizes)).double()
    return float(every.median()), float(every.quantile(0.9)), float(every.max())
