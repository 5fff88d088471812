"""Attention over all earlier keys, and over a chosen few: both chunked over queries, both exact."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CPU_BYTES_AT_ONCE = 16 << 20
"""Size that a chunk's largest intermediate may have (about a cache); bounds memory, never changes a result."""
GPU_BYTES_AT_ONCE = 512 << 20


def rows_at_once(bytes_per_row: int, limit: int, device: torch.device) -> int:
    """Rows of a chunk: as many as the device's bytes allow, between 1 and ``limit``."""
    allowed = CPU_BYTES_AT_ONCE if device.type == "cpu" else GPU_BYTES_AT_ONCE
    return max(1, min(limit, allowed // max(1, bytes_per_row)))


def dense_attention(q: Tensor, k: Tensor, v: Tensor, start: int) -> Tensor:
    """Causal grouped-query attention: ``q`` [T, heads, D] at places ``start``.., ``k`` and ``v`` [S, kv_heads, D].

    Keys stand at places 0..S-1; query ``t`` sees places up to ``start + t``. Returns [T, heads, D].
    """
    tokens, heads, dim = q.shape
    if tokens == 1:
        seen, kv_heads = start + 1, k.shape[1]
        groups = q.view(1, kv_heads, heads // kv_heads, dim)
        keys, values = k[:seen].transpose(0, 1).unsqueeze(0), v[:seen].transpose(0, 1).unsqueeze(0)
        return F.scaled_dot_product_attention(groups, keys, values).view(1, heads, dim)
    rows = rows_at_once(heads * (start + tokens) * q.element_size(), tokens, q.device)
    if start == 0 and rows == tokens:
        return _sdpa(q, k[:tokens], v[:tokens], None, causal=True)
    pieces = []
    for first in range(0, tokens, rows):
        piece = q[first : first + rows]
        seen = start + first + piece.shape[0]
        places = torch.arange(start + first, seen, device=q.device)
        mask = torch.arange(seen, device=q.device) <= places.unsqueeze(1)
        pieces.append(_sdpa(piece, k[:seen], v[:seen], mask, causal=False))
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def sparse_attention(q: Tensor, k: Tensor, v: Tensor, indices: Tensor) -> Tensor:
    """Softmax over each query's own keys: ``q`` [T, heads, D], ``k`` and ``v`` [S, kv_heads, D], ``indices`` [T, n].

    ``indices`` are places in S, -1 for none; one set serves all heads of a query. Returns [T, heads, D].
    """
    tokens, chosen = indices.shape
    rows = rows_at_once(2 * chosen * k.shape[1] * k.shape[2] * k.element_size(), tokens, k.device)
    if tokens <= rows:
        return _gathered(q, k, v, indices)
    parts = zip(torch.split(q, rows), torch.split(indices, rows), strict=True)
    return torch.cat([_gathered(piece, k, v, places) for piece, places in parts])


def _gathered(q: Tensor, k: Tensor, v: Tensor, indices: Tensor) -> Tensor:
    (tokens, heads, dim), kv_heads, chosen = q.shape, k.shape[1], indices.shape[1]
    mask, missing = None, indices < 0
    if bool(missing.any()):
        mask, indices = ~missing.view(tokens, 1, 1, chosen), indices.clamp_min(0)
    shape = (tokens, chosen, kv_heads, dim)
    keys = k.index_select(0, indices.flatten()).view(shape).transpose(1, 2)
    values = v.index_select(0, indices.flatten()).view(shape).transpose(1, 2)
    groups = q.view(tokens, kv_heads, heads // kv_heads, dim)
    return F.scaled_dot_product_attention(groups, keys, values, attn_mask=mask).reshape(tokens, heads, dim)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, causal: bool) -> Tensor:
    queries, keys, values = (x.transpose(0, 1).unsqueeze(0) for x in (q, k, v))
    out = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, is_causal=causal, enable_gqa=True)
    return out.squeeze(0).transpose(0, 1)
