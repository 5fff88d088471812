"""Triton: prefill attention by unions: adjacent queries read each key that any of them chose once, masked to their own.

The group of query heads of all queries of a block are the rows of one matrix product, whose columns are the keys of the
block's list. Blocks without a list, whose queries share too little, are left to the gather of each query's own keys.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from keyeloop.model_backend.kernels.jit import attention
from keyeloop.model_backend.kernels.jit.union import WORK, Unions, Work, unite

SHARE = 0.58
"""Longest list, as a part of all choices of a block, that pays: above it each query's own gather is faster."""
QUERIES_AT_ONCE = 8192
"""Bounds the memory of the lists."""


@dataclass(frozen=True)
class Tiling:
    """How work is cut; changes speed, and the order of summation."""

    queries: int
    keys: int
    warps: int
    stages: int
    apart: bool = True
    """All blocks of one key head before the next: what runs at a time shares keys that fit the L2 cache better."""


TILING = Tiling(8, 32, 4, 3)
EXACT_TILING = Tiling(8, 32, 4, 1)
"""For float32, whose products take no matrix units."""


@triton.jit(do_not_specialize=["tokens"])
def _attend_block(
    q, k, v, slots, masks, lengths, out, scale,
    q_token, q_head, k_head, v_head, tokens, room, K_SLOT: tl.constexpr, V_SLOT: tl.constexpr,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, GROUP_WIDE: tl.constexpr, DIM: tl.constexpr, DIM_WIDE: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, APART: tl.constexpr,
):  # fmt: skip
    program, blocks = tl.program_id(0), tl.num_programs(0) // KV_HEADS
    kv_head = program // blocks if APART else program % KV_HEADS
    block = (program % blocks if APART else program // KV_HEADS).to(tl.int64)
    length = tl.load(lengths + block)
    if length < 0:
        return
    row, dims, lane = tl.arange(0, QUERIES * GROUP_WIDE), tl.arange(0, DIM_WIDE), tl.arange(0, KEYS)
    query, member = row % QUERIES, row // QUERIES
    token, head = block * QUERIES + query, kv_head * GROUP + member
    inside = ((member < GROUP) & (token < tokens))[:, None] & (dims < DIM)[None, :]
    asked = tl.load(q + token[:, None] * q_token + head[:, None] * q_head + dims[None, :], mask=inside, other=0.0)
    k += kv_head * k_head
    v += kv_head * v_head
    slots += block * room
    masks += block * room
    peak = tl.full((QUERIES * GROUP_WIDE,), -1e30, tl.float32)
    total = tl.zeros((QUERIES * GROUP_WIDE,), tl.float32)
    attended = tl.zeros((QUERIES * GROUP_WIDE, DIM_WIDE), tl.float32)
    slot, mask = tl.load(slots + lane), tl.load(masks + lane)
    for index in range(0, length, KEYS):
        following = tl.minimum(index + KEYS, room - KEYS) + lane
        place = slot.to(tl.int64)
        slot = tl.load(slots + following)
        if DIM == DIM_WIDE:
            key = tl.load(k + place[:, None] * K_SLOT + dims[None, :])
            value = tl.load(v + place[:, None] * V_SLOT + dims[None, :])
        else:
            key = tl.load(k + place[:, None] * K_SLOT + dims[None, :], mask=(dims < DIM)[None, :], other=0.0)
            value = tl.load(v + place[:, None] * V_SLOT + dims[None, :], mask=(dims < DIM)[None, :], other=0.0)
        dots = tl.dot(asked, tl.trans(key), input_precision="ieee")
        chose = (mask.to(tl.int32)[None, :] >> query[:, None]) & 1
        mask = tl.load(masks + following)
        dots = tl.where(chose != 0, dots, -float("inf"))
        top = tl.max(dots, 1) * scale
        higher = tl.maximum(peak, top)
        weight = tl.exp2(dots * scale - higher[:, None])
        fade = tl.exp2(peak - higher)
        total = total * fade + tl.sum(weight, 1)
        attended = tl.dot(weight.to(value.dtype), value, attended * fade[:, None], input_precision="ieee")
        peak = higher
    found = (total > 0.0) | (total != total)
    attended = tl.where(found[:, None], attended / tl.where(total > 0.0, total, 1.0)[:, None], 0.0)
    heads = KV_HEADS * GROUP
    tl.store(
        out + (token[:, None] * heads + head[:, None]) * DIM + dims[None, :], attended.to(out.dtype.element_ty),
        mask=inside,
    )  # fmt: skip


def attend_blocks(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, unions: Unions, scale: float, out: Tensor, tiling: Tiling
) -> None:
    """Writes ``out`` [T, heads, D] of the queries whose blocks have a list, and nothing else.

    A value that is not finite reaches all queries of a block that reads it.
    """
    (tokens, heads, dim), kv_heads = q.shape, k_cache.shape[1]
    group, blocks = heads // kv_heads, len(unions.lengths)
    wide = max(triton.next_power_of_2(group), 16 // unions.queries)
    _attend_block[(blocks * kv_heads,)](
        q, k_cache, v_cache, unions.slots, unions.masks, unions.lengths, out, scale * math.log2(math.e), q.stride(0),
        q.stride(1), k_cache.stride(1), v_cache.stride(1), tokens, unions.slots.shape[1], k_cache.stride(0),
        v_cache.stride(0), kv_heads, group, wide, dim, max(16, triton.next_power_of_2(dim)), unions.queries,
        tiling.keys, tiling.apart, num_warps=tiling.warps, num_stages=tiling.stages,
    )  # fmt: skip


def prefill_attention(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, slot_table: Tensor, query_row: Tensor, positions: Tensor,
    scale: float, max_tokens: int | None = None, *, share: float = SHARE, tiling: Tiling | None = None,
    work: Work = WORK,
) -> Tensor:  # fmt: skip
    """See :func:`keyeloop.model_backend.kernels.ops.sparse_attention`: by unions where they are short, else by gather.

    What is done is decided on the device, block by block, from the choices alone: the same call gives the same bits.
    """
    if tiling is None:
        tiling = EXACT_TILING if q.dtype == torch.float32 else TILING
    (tokens, heads, dim), positions = q.shape, positions.contiguous()
    out = torch.empty(tokens, heads, dim, dtype=q.dtype, device=q.device)
    for first in range(0, tokens, QUERIES_AT_ONCE):
        part = slice(first, min(first + QUERIES_AT_ONCE, tokens))
        rows, places = query_row[part], positions[part]
        unions = unite(places, rows, slot_table, tiling.queries, share=share, width=max_tokens, work=work)
        attend_blocks(q[part], k_cache, v_cache, unions, scale, out[part], tiling)
        attention.gather(q[part], k_cache, v_cache, slot_table, rows, places, scale, out[part], unions=unions)
    return out
