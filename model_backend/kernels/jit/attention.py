"""Triton: softmax attention of each query over its own chosen places, gathered through the table of slots.

One program takes one query and one key/value head, with that head's group of query heads as the rows of its products.
Few queries (decoding) split their places over several programs, whose parts a second kernel combines in fixed order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from keyeloop.model_backend.kernels.jit.union import Unions

PROGRAMS = 528
MAX_SPLITS = 32
LOOK = 1024
"""Choices that are read at once to find where a query's end."""


@dataclass(frozen=True)
class Cut:
    """How a query's places are shared among programs, and how many keys a program takes at once."""

    splits: int
    keys: int
    warps: int
    stages: int
    turned: bool = True
    """Keys are rows of the products and heads columns, of which eight fill the matrix units; else the other way."""
    apart: bool = False
    """All queries of one key head before the next: what runs at a time shares keys that fit the L2 cache better."""


@triton.jit
def _share_of(program, splits, KV_HEADS: tl.constexpr, APART: tl.constexpr):
    """Key head, part of the places, and query of a program."""
    if APART:
        each = tl.num_programs(0) // KV_HEADS
        kv_head, part = program // each, program % each
        split, token = part % splits, part // splits
    else:
        kv_head, split, token = program % KV_HEADS, program // KV_HEADS % splits, program // (KV_HEADS * splits)
    return kv_head, split, token.to(tl.int64)


@triton.jit(do_not_specialize=["chosen", "splits"], do_not_specialize_on_alignment=["rows", "taken"])
def _attend(
    q, k, v, table, rows, positions, out, peaks, sums, taken, scale,
    q_token, q_head, k_head, v_head, table_stride, chosen, K_SLOT: tl.constexpr, V_SLOT: tl.constexpr,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, GROUP_WIDE: tl.constexpr, DIM: tl.constexpr, DIM_WIDE: tl.constexpr,
    splits, KEYS: tl.constexpr, SHARED: tl.constexpr, LOOK: tl.constexpr, BLOCK: tl.constexpr,
    APART: tl.constexpr,
):  # fmt: skip
    kv_head, split, token = _share_of(tl.program_id(0), splits, KV_HEADS, APART)
    if BLOCK > 0:  # noqa: SIM102, of which one side is known when compiling
        if tl.load(taken + token // BLOCK) >= 0:
            return
    member, dims, lane = tl.arange(0, GROUP_WIDE), tl.arange(0, DIM_WIDE), tl.arange(0, KEYS)
    head = kv_head * GROUP + member
    inside = (member < GROUP)[:, None] & (dims < DIM)[None, :]
    query = tl.load(q + token * q_token + head[:, None] * q_head + dims[None, :], mask=inside, other=0.0)
    table += tl.load(rows + token).to(tl.int64) * table_stride
    positions += token * chosen
    k += kv_head * k_head
    v += kv_head * v_head
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
    place = tl.load(positions + start + lane, mask=start + lane < stop, other=-1)
    slot = tl.load(table + place, mask=place >= 0, other=-1)
    later = tl.load(positions + start + KEYS + lane, mask=start + KEYS + lane < stop, other=-1)
    for index in range(start, stop, KEYS):
        there = slot >= 0
        address = slot.to(tl.int64)[:, None]
        found = there[:, None] & (dims < DIM)[None, :]
        key = tl.load(k + address * K_SLOT + dims[None, :], mask=found, other=0.0)
        value = tl.load(v + address * V_SLOT + dims[None, :], mask=found, other=0.0)
        slot = tl.load(table + later, mask=later >= 0, other=-1)
        later = tl.load(positions + index + 2 * KEYS + lane, mask=index + 2 * KEYS + lane < stop, other=-1)
        dots = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
        dots = tl.where(there[None, :], dots, -1e30)
        higher = tl.maximum(peak, tl.max(dots, 1))
        weight = tl.where(there[None, :], tl.exp2(dots - higher[:, None]), 0.0)
        fade = tl.exp2(peak - higher)
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


@triton.jit(do_not_specialize=["chosen", "splits"], do_not_specialize_on_alignment=["rows", "taken"])
def _attend_turned(
    q, k, v, table, rows, positions, out, peaks, sums, taken, scale,
    q_token, q_head, k_head, v_head, table_stride, chosen, K_SLOT: tl.constexpr, V_SLOT: tl.constexpr,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, GROUP_WIDE: tl.constexpr, DIM: tl.constexpr, DIM_WIDE: tl.constexpr,
    splits, KEYS: tl.constexpr, SHARED: tl.constexpr, LOOK: tl.constexpr, BLOCK: tl.constexpr,
    APART: tl.constexpr,
):  # fmt: skip
    kv_head, split, token = _share_of(tl.program_id(0), splits, KV_HEADS, APART)
    if BLOCK > 0:  # noqa: SIM102, of which one side is known when compiling
        if tl.load(taken + token // BLOCK) >= 0:
            return
    member, dims, lane = tl.arange(0, GROUP_WIDE), tl.arange(0, DIM_WIDE), tl.arange(0, KEYS)
    head = kv_head * GROUP + member
    inside = (member < GROUP)[None, :] & (dims < DIM)[:, None]
    query = tl.load(q + token * q_token + head[None, :] * q_head + dims[:, None], mask=inside, other=0.0)
    table += tl.load(rows + token).to(tl.int64) * table_stride
    positions += token * chosen
    k += kv_head * k_head
    v += kv_head * v_head
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
    attended = tl.zeros((DIM_WIDE, GROUP_WIDE), tl.float32)
    place = tl.load(positions + start + lane, mask=start + lane < stop, other=-1)
    slot = tl.load(table + place, mask=place >= 0, other=-1)
    later = tl.load(positions + start + KEYS + lane, mask=start + KEYS + lane < stop, other=-1)
    for index in range(start, stop, KEYS):
        there = slot >= 0
        address = slot.to(tl.int64)[:, None]
        found = there[:, None] & (dims < DIM)[None, :]
        key = tl.load(k + address * K_SLOT + dims[None, :], mask=found, other=0.0)
        value = tl.load(
            v + slot.to(tl.int64)[None, :] * V_SLOT + dims[:, None],
            mask=there[None, :] & (dims < DIM)[:, None],
            other=0.0,
        )
        slot = tl.load(table + later, mask=later >= 0, other=-1)
        later = tl.load(positions + index + 2 * KEYS + lane, mask=index + 2 * KEYS + lane < stop, other=-1)
        dots = tl.dot(key, query, input_precision="ieee") * scale
        dots = tl.where(there[:, None], dots, -1e30)
        higher = tl.maximum(peak, tl.max(dots, 0))
        weight = tl.where(there[:, None], tl.exp2(dots - higher[None, :]), 0.0)
        fade = tl.exp2(peak - higher)
        attended = tl.dot(value, weight.to(value.dtype), attended * fade[None, :], input_precision="ieee")
        total = total * fade + tl.sum(weight, 0)
        peak = higher
    heads = KV_HEADS * GROUP
    if not SHARED:
        attended = attended / tl.where(total > 0.0, total, 1.0)[None, :]
        tl.store(
            out + (token * heads + head[None, :]) * DIM + dims[:, None], attended.to(out.dtype.element_ty), mask=inside
        )
    else:
        part = (token * heads + head) * splits + split
        tl.store(out + part[None, :] * DIM + dims[:, None], attended, mask=inside)
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
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    gather(q, k_cache, v_cache, slot_table, query_row, positions.contiguous(), scale, out)
    return out


def gather(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, slot_table: Tensor, query_row: Tensor, positions: Tensor,
    scale: float, out: Tensor, *, unions: Unions | None = None, cut: Cut | None = None,
) -> None:  # fmt: skip
    """Writes ``out`` [T, heads, D]; with ``unions``, only of queries whose block has no list, and unsplit."""
    (tokens, heads, dim), kv_heads, chosen = q.shape, k_cache.shape[1], positions.shape[1]
    if not tokens:
        return
    group = heads // kv_heads
    if cut is None:
        cut = _cut(tokens * kv_heads, chosen, q.dtype, whole=unions is not None)
    if cut.splits == 1:
        parts, peaks, sums = out, out, out
    else:
        parts = torch.empty(tokens, heads, cut.splits, dim, dtype=torch.float32, device=q.device)
        peaks, sums = torch.empty(2, tokens, heads, cut.splits, dtype=torch.float32, device=q.device)
    dim_wide = max(16, triton.next_power_of_2(dim))
    kernel, narrow = (_attend_turned, 8) if cut.turned else (_attend, 16)
    group_wide = max(narrow, triton.next_power_of_2(group))
    kernel[(tokens * kv_heads * cut.splits,)](
        q, k_cache, v_cache, slot_table, query_row, positions, parts, peaks, sums,
        query_row if unions is None else unions.lengths,
        scale * math.log2(math.e), q.stride(0), q.stride(1), k_cache.stride(1), v_cache.stride(1),
        slot_table.stride(0), chosen, k_cache.stride(0), v_cache.stride(0), kv_heads, group, group_wide, dim,
        dim_wide, cut.splits, cut.keys, cut.splits > 1, LOOK, 0 if unions is None else unions.queries,
        cut.apart, num_warps=cut.warps, num_stages=cut.stages,
    )  # fmt: skip
    if cut.splits > 1:
        _combine[(tokens * heads,)](
            parts, peaks, sums, out, cut.splits, dim, dim_wide, cut.splits, num_warps=1 if cut.splits <= 4 else 4
        )


def _cut(programs: int, chosen: int, dtype: torch.dtype, *, whole: bool) -> Cut:
    splits = 1
    if not whole:
        most = max(1, min(PROGRAMS // programs, triton.cdiv(chosen, 64), MAX_SPLITS))
        splits = int(triton.next_power_of_2(most))
    if dtype == torch.float32:
        return Cut(splits, 32, 4, 1)
    if whole:
        return Cut(splits, 32, 1, 3, apart=True)
    return Cut(splits, 16, 1, 3) if splits == 1 else Cut(splits, 64, 4, 2, turned=False)
