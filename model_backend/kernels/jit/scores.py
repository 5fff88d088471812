"""Triton: index scores of many queries against the paged keys of their own requests, in float32.

Keys are the rows of the matrix product and (query, head) pairs its columns, ordered so that on NVIDIA's tensor cores
all heads of a query lie in one thread and their sum needs no exchange. A tile of adjacent queries may hold several
requests; it then goes through its keys once for each. Lengths are read on the device.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from keyeloop.model_backend.kernels.index_keys import IndexKeys

PROGRAMS = 1056
"""Programs that keep a GPU busy; work is split over keys until there are as many."""


@triton.jit
def _decode_e4m3(code):
    """Float16 of an e4m3 code, times 2^-8: exact, and needs no hardware support of the format."""
    wide = code.to(tl.uint16)
    return (((wide & 0x80) << 8) | ((wide & 0x7F) << 7)).to(tl.float16, bitcast=True)


@triton.jit(do_not_specialize=["tokens", "topk"], do_not_specialize_on_alignment=["rows", "positions"])
def _score(
    q, weights, keys, scales, table, rows, positions, scores, tokens, table_stride, key_stride, score_stride, topk,
    HEADS: tl.constexpr, HEADS_WIDE: tl.constexpr, DIM: tl.constexpr, DIM_WIDE: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, SCALED: tl.constexpr, NATIVE: tl.constexpr,
):  # fmt: skip
    first, split, splits = tl.program_id(0) * QUERIES, tl.program_id(1), tl.num_programs(1)
    LANES: tl.constexpr = 4 if QUERIES >= 4 else 1
    HALF: tl.constexpr = HEADS_WIDE // 2
    column = tl.arange(0, QUERIES * HEADS_WIDE)
    query = column // (HEADS_WIDE * LANES) * LANES + column // 2 % LANES
    head = column // (2 * LANES) % HALF * 2 + column % 2
    token = (first + query).to(tl.int64)
    asks = (first + query < tokens) & (head < HEADS)
    dims = tl.arange(0, DIM_WIDE)
    queries = tl.load(
        q + (token * HEADS + head)[None, :] * DIM + dims[:, None], mask=asks[None, :] & (dims < DIM)[:, None], other=0.0
    )
    if SCALED and not NATIVE:
        queries = _decode_e4m3(queries)
    if not SCALED:
        queries = queries.to(keys.dtype.element_ty)
    weight = tl.load(weights + token * HEADS + head, mask=asks, other=0.0)
    own = first + tl.arange(0, QUERIES)
    row = tl.load(rows + own, mask=own < tokens, other=-1)
    position = tl.load(positions + own, mask=own < tokens, other=-1)
    position = tl.where(position < topk, -1, position)
    for number in range(QUERIES):
        at = tl.minimum(first + number, tokens - 1)
        this = tl.load(rows + at)
        before = tl.load(rows + tl.maximum(at - 1, 0))
        members = row == this
        length = tl.max(tl.where(members, position, -1), 0) + 1
        share = tl.cdiv(tl.cdiv(length, KEYS), splits) * KEYS
        start = split * share
        stop = tl.minimum(start + share, length)
        if (number > 0) & (this == before):
            stop = start
        for place in range(start, stop, KEYS):
            places = place + tl.arange(0, KEYS)
            there = places < length
            slot = tl.load(table + this.to(tl.int64) * table_stride + places, mask=there, other=0).to(tl.int64)
            key = tl.load(
                keys + slot[:, None] * key_stride + dims[None, :],
                mask=there[:, None] & (dims < DIM)[None, :],
                other=0.0,
            )
            if SCALED and not NATIVE:
                key = _decode_e4m3(key)
            dots = tl.dot(key, queries, input_precision="ieee")
            dots = tl.maximum(dots, 0.0) * weight[None, :]
            parts = tl.reshape(dots, (KEYS, QUERIES // LANES, HALF, LANES, 2))
            total = tl.reshape(tl.sum(tl.sum(parts, 4), 2), (KEYS, QUERIES))
            if SCALED:
                scale = tl.load(scales + slot, mask=there, other=0.0)
                if not NATIVE:
                    scale *= 65536.0
                total *= scale[:, None]
            tl.store(
                scores + own[None, :].to(tl.int64) * score_stride + places[:, None],
                total, mask=members[None, :] & (places[:, None] <= position[None, :]),
            )  # fmt: skip


def scores(
    index_q: Tensor, index_weight: Tensor, index_k: IndexKeys, slot_table: Tensor, query_row: Tensor,
    query_position: Tensor, topk: int, out: Tensor, *, one_each: bool,
) -> None:  # fmt: skip
    """Writes ``out`` [T, width] float32 at the places that each query sees, if these are more than ``topk``.

    ``one_each`` says that adjacent queries are mostly of different requests, as in decoding.
    """
    tokens, heads, dim = index_q.shape
    scaled = index_k.scales is not None
    native = scaled and out.is_cuda and torch.cuda.get_device_capability(out.device) >= (8, 9)
    wide = max(2, triton.next_power_of_2(heads))
    if one_each:
        queries, keys, wide, warps, stages = 1, 128, max(16, wide), 4, 3
    else:
        queries, keys, warps, stages = max(4, min(16, 256 // wide)), 128, 4, 3
    if index_k.values.dtype == torch.float32:
        keys, stages = 32, 2
    values = index_k.values
    if scaled and not native:
        index_q, values = index_q.view(torch.uint8), values.view(torch.uint8)
    tiles = triton.cdiv(tokens, queries)
    splits = max(1, min(triton.cdiv(out.shape[1], keys), triton.cdiv(PROGRAMS, tiles)))
    _score[(tiles, splits)](
        index_q.contiguous(), index_weight.contiguous(), values, index_k.scales if scaled else index_weight,
        slot_table, query_row, query_position, out, tokens, slot_table.stride(0), values.stride(0), out.stride(0), topk,
        heads, wide, dim, max(32, triton.next_power_of_2(dim)), queries, keys, scaled, native,
        num_warps=warps, num_stages=stages,
    )  # fmt: skip
