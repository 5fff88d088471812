"""Attention over all earlier keys, and over a chosen few: both chunked over queries, both exact."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BYTES_AT_ONCE = 64 << 20
"""Size that a chunk's largest intermediate may have; bounds memory, never changes a result."""


def rows_at_once(bytes_per_row: int, limit: int) -> int:
    """Rows of a chunk: as many as fit :data:`BYTES_AT_ONCE`, between 1 and ``limit``."""
    return max(1, min(limit, BYTES_AT_ONCE // max(1, bytes_per_row)))


def dense_attention(q: Tensor, k: Tensor, v: Tensor, start: int) -> Tensor:
    """Causal grouped-query attention: ``q`` [T, heads, D] at places ``start``.., ``k`` and ``v`` [kv_heads, S, D].

    Keys stand at places 0..S-1; query ``t`` sees places up to ``start + t``. Returns [T, heads, D].
    """
    tokens, heads, dim = q.shape
    if tokens == 1:
        groups = q.view(k.shape[0], heads // k.shape[0], dim)
        return F.scaled_dot_product_attention(groups.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0)).view(1, heads, dim)
    rows = rows_at_once(heads * k.shape[1] * q.element_size(), tokens)
    if start == 0 and rows == tokens:
        return _sdpa(q, k[:, :tokens], v[:, :tokens], None, causal=True)
    pieces = []
    for first in range(0, tokens, rows):
        piece = q[first : first + rows]
        seen = start + first + piece.shape[0]
        places = torch.arange(start + first, seen, device=q.device)
        mask = torch.arange(seen, device=q.device) <= places.unsqueeze(1)
        pieces.append(_sdpa(piece, k[:, :seen], v[:, :seen], mask, causal=False))
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def sparse_attention(q: Tensor, k: Tensor, v: Tensor, indices: Tensor) -> Tensor:
    """Softmax over each query's own keys: ``q`` [T, heads, D], ``k`` and ``v`` [kv_heads, S, D], ``indices`` [T, n].

    ``indices`` are places in S, -1 for none; one set serves all heads of a query. Returns [T, heads, D].
    """
    tokens, chosen = indices.shape
    rows = rows_at_once(2 * k.shape[0] * chosen * k.shape[2] * k.element_size(), tokens)
    if tokens <= rows:
        return _gathered(q, k, v, indices)
    parts = zip(q.split(rows), indices.split(rows), strict=True)
    return torch.cat([_gathered(piece, k, v, places) for piece, places in parts])


def _gathered(q: Tensor, k: Tensor, v: Tensor, indices: Tensor) -> Tensor:
    tokens, heads, dim = q.shape
    kv_heads, chosen = k.shape[0], indices.shape[1]
    missing = indices < 0
    mask = ~missing.view(1, tokens, 1, chosen) if bool(missing.any()) else None
    flat = indices.clamp_min(0).flatten()
    keys = k.index_select(1, flat).view(kv_heads, tokens, chosen, dim)
    values = v.index_select(1, flat).view(kv_heads, tokens, chosen, dim)
    groups = q.view(tokens, kv_heads, heads // kv_heads, dim).transpose(0, 1)
    out = F.scaled_dot_product_attention(groups, keys, values, attn_mask=mask)
    return out.transpose(0, 1).reshape(tokens, heads, dim)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, causal: bool) -> Tensor:
    queries = q.transpose(0, 1).unsqueeze(0)
    keys, values = k.unsqueeze(0), v.unsqueeze(0)
    out = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, is_causal=causal, enable_gqa=True)
    return out.squeeze(0).transpose(0, 1)
