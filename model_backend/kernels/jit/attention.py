"""Triton: softmax attention of each query over its own chosen places, gathered through the table of slots.

One program takes one query and one key/value head, with that head's group of query heads as the rows of its products.
Few queries (decoding) split their places over several programs, whose parts a second kernel combines in fixed order.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

PROGRAMS = 528
MAX_SPLITS = 32


@triton.jit(do_not_specialize=["chosen", "splits"], do_not_specialize_on_alignment=["rows"])
def _attend(
    q, k, v, table, rows, positions, out, peaks, sums, scale,
    q_token, q_head, k_slot, k_head, v_slot, v_head, table_stride, chosen,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, GROUP_WIDE: tl.constexpr, DIM: tl.constexpr, DIM_WIDE: tl.constexpr,
    splits, KEYS: tl.constexpr, SHARED: tl.constexpr, LOOK: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    kv_head = program % KV_HEADS
    split = program // KV_HEADS % splits
    token = (program // (KV_HEADS * splits)).to(tl.int64)
    member, dims, lane = tl.arange(0, GROUP_WIDE), tl.arange(0, DIM_WIDE), tl.arange(0, KEYS)
    head = kv_head * GROUP + member
    inside = (member < GROUP)[:, None] & (dims < DIM)[None, :]
    query = tl.load(q + token * q_token + head[:, None] * q_head + dims[None, :], mask=inside, other=0.0)
    table += tl.load(rows + token).to(tl.int64) * table_stride
    positions += token * chosen
    share = tl.cdiv(tl.cdiv(chosen, KEYS), splits) * KEYS
    start = split * share
    limit = tl.minimum(start + share, chosen)
    stop = start
    for look in range(start, limit, LOOK):
        index = look + tl.arange(0, LOOK)
        place = tl.load(positions + index, mask=index < limit, other=-1)
        stop = tl.maximum(stop, tl.max(tl.where(place >= 0, index + 1, 0), 0))
    peak = tl.full((GROUP_WIDE,), -1e30, tl.float32)
    total = tl.zeros((GROUP_WIDE,), tl.float32)
    attended = tl.zeros((GROUP_WIDE, DIM_WIDE), tl.float32)
    for index in range(start, stop, KEYS):
        place = tl.load(positions + index + lane, mask=index + lane < stop, other=-1)
        there = place >= 0
        slot = tl.load(table + place, mask=there, other=0).to(tl.int64)
        found = there[:, None] & (dims < DIM)[None, :]
        key = tl.load(k + slot[:, None] * k_slot + kv_head * k_head + dims[None, :], mask=found, other=0.0)
        dots = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
        dots = tl.where(there[None, :], dots, -1e30)
        higher = tl.maximum(peak, tl.max(dots, 1))
        weight = tl.where(there[None, :], tl.exp2(dots - higher[:, None]), 0.0)
        fade = tl.exp2(peak - higher)
        value = tl.load(v + slot[:, None] * v_slot + kv_head * v_head + dims[None, :], mask=found, other=0.0)
        attended = tl.dot(weight.to(value.dtype), value, attended * fade[:, None], input_precision="ieee")
        total = total * fade + tl.sum(weight, 1)
        peak = higher
    heads = KV_HEADS * GROUP
    if not SHARED:
        attended = attended / tl.where(total > 0.0, total, 1.0)[:, None]
        tl.store(
            out + (token * heads + head[:, None]) * DIM + dims[None, :], attended.to(out.dtype.element_ty), mask=inside
        )
    else:
        part = (token * heads + head) * splits + split
        tl.store(out + part[:, None] * DIM + dims[None, :], attended, mask=inside)
        tl.store(peaks + part, peak, mask=member < GROUP)
        tl.store(sums + part, total, mask=member < GROUP)


@triton.jit(do_not_specialize=["splits"])
def _combine(parts, peaks, sums, out, splits, DIM: tl.constexpr, DIM_WIDE: tl.constexpr, MOST: tl.constexpr):
    head = tl.program_id(0).to(tl.int64)
    split, dims = tl.arange(0, MOST), tl.arange(0, DIM_WIDE)
    there = split < splits
    peak = tl.load(peaks + head * splits + split, mask=there, other=-float("inf"))
    weight = tl.exp2(peak - tl.max(peak, 0))
    total = tl.sum(tl.load(sums + head * splits + split, mask=there, other=0.0) * weight, 0)
    inside = there[:, None] & (dims < DIM)[None, :]
    part = tl.load(parts + (head * splits + split)[:, None] * DIM + dims[None, :], mask=inside, other=0.0)
    attended = tl.sum(part * weight[:, None], 0) / tl.where(total > 0.0, total, 1.0)
    tl.store(out + head * DIM + dims, attended.to(out.dtype.element_ty), mask=dims < DIM)


def sparse_attention(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, slot_table: Tensor, query_row: Tensor, positions: Tensor, scale: float
) -> Tensor:
    """See :func:`keyeloop.model_backend.kernels.ops.sparse_attention`; the last axes must be contiguous."""
    (tokens, heads, dim), kv_heads, chosen = q.shape, k_cache.shape[1], positions.shape[1]
    out = torch.empty(tokens, heads, dim, dtype=q.dtype, device=q.device)
    if not tokens:
        return out
    group = heads // kv_heads
    splits = triton.next_power_of_2(max(1, min(PROGRAMS // (tokens * kv_heads), triton.cdiv(chosen, 64), MAX_SPLITS)))
    keys, warps, stages = (32, 1, 2) if splits == 1 else (64, 4, 2)
    if q.dtype == torch.float32:
        keys, warps, stages = 32, 4, 1
    if splits == 1:
        parts, peaks, sums = out, out, out
    else:
        parts = torch.empty(tokens, heads, splits, dim, dtype=torch.float32, device=q.device)
        peaks, sums = torch.empty(2, tokens, heads, splits, dtype=torch.float32, device=q.device)
    dim_wide = max(16, triton.next_power_of_2(dim))
    _attend[(tokens * kv_heads * splits,)](
        q, k_cache, v_cache, slot_table, query_row, positions.contiguous(), parts, peaks, sums,
        scale * math.log2(math.e), q.stride(0), q.stride(1), k_cache.stride(0), k_cache.stride(1), v_cache.stride(0),
        v_cache.stride(1), slot_table.stride(0), chosen, kv_heads, group, max(16, triton.next_power_of_2(group)), dim,
        dim_wide, splits, keys, splits > 1, 256, num_warps=warps, num_stages=stages,
    )  # fmt: skip
    if splits > 1:
        _combine[(tokens * heads,)](parts, peaks, sums, out, splits, dim, dim_wide, MAX_SPLITS, num_warps=4)
    return out
