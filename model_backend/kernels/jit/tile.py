"""Triton: one tile of index scores, keys as rows of a matrix product and (query, head) pairs as its columns.

Columns are ordered so that on NVIDIA's tensor cores all heads of a query lie in one thread and their sum needs no
exchange. Heads are added in one fixed order by fused multiply-adds, whatever the tile: a pair of query and key has the
same bits in every kernel that scores it.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _decode_e4m3(code):
    """Float16 of an e4m3 code, times 2^-8: exact, and needs no hardware support of the format."""
    wide = code.to(tl.uint16)
    return (((wide & 0x80) << 8) | ((wide & 0x7F) << 7)).to(tl.float16, bitcast=True)


@triton.jit
def asked(
    q, weights, first, tokens, key_type: tl.constexpr,
    HEADS: tl.constexpr, HEADS_WIDE: tl.constexpr, DIM: tl.constexpr, DIM_WIDE: tl.constexpr,
    QUERIES: tl.constexpr, SCALED: tl.constexpr, NATIVE: tl.constexpr,
):  # fmt: skip
    """Columns [DIM_WIDE, QUERIES * HEADS_WIDE] of the queries from ``first`` on, and weights for :func:`scored`."""
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
        queries = queries.to(key_type)
    weight = tl.load(weights + token * HEADS + head, mask=asks, other=0.0)
    if SCALED:
        weight *= 0.5
    return queries, weight


@triton.jit
def _add_heads(dots, weight, total, SCALED: tl.constexpr):
    """Adds the weighted positive parts of ``dots`` [K, Q, H] to ``total`` [K, Q], one head after the other."""
    KEYS: tl.constexpr = dots.shape[0]
    QUERIES: tl.constexpr = dots.shape[1]
    HEADS: tl.constexpr = dots.shape[2]
    if HEADS == 1:
        dot = tl.reshape(dots, (KEYS, QUERIES))
        dot = dot + tl.abs(dot) if SCALED else tl.maximum(dot, 0.0)  # twice it, where the weight is halved
        total = tl.fma(dot, tl.broadcast_to(tl.reshape(weight, (1, QUERIES)), (KEYS, QUERIES)), total)
    else:
        even, odd = tl.split(tl.reshape(dots, (KEYS, QUERIES, HEADS // 2, 2)))
        even_weight, odd_weight = tl.split(tl.reshape(weight, (1, QUERIES, HEADS // 2, 2)))
        total = _add_heads(even, even_weight, total, SCALED)
        total = _add_heads(odd, odd_weight, total, SCALED)
    return total


@triton.jit
def scales_of(scales, slot, SCALED: tl.constexpr, NATIVE: tl.constexpr):
    """What :func:`scored` multiplies scores of the keys in ``slot`` with; zeros where keys have no scales."""
    if SCALED:
        scale = tl.load(scales + slot)
        if not NATIVE:
            scale *= 65536.0
    else:
        scale = tl.zeros(slot.shape, tl.float32)
    return scale


@triton.jit
def scored(
    queries, weight, keys, scale, slot, key_stride,
    HEADS_WIDE: tl.constexpr, DIM: tl.constexpr, DIM_WIDE: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, SCALED: tl.constexpr, NATIVE: tl.constexpr,
):  # fmt: skip
    """Scores [KEYS, QUERIES] of the keys in the slots ``slot`` [KEYS] int64, all of which must exist.

    Their ``scale`` [KEYS] is given, so that a loop can read it a step ahead: reading it takes two steps itself.
    """
    LANES: tl.constexpr = 4 if QUERIES >= 4 else 1
    HALF: tl.constexpr = HEADS_WIDE // 2
    dims = tl.arange(0, DIM_WIDE)
    place = keys + slot[:, None] * key_stride + dims[None, :]
    key = tl.load(place) if DIM == DIM_WIDE else tl.load(place, mask=(dims < DIM)[None, :], other=0.0)
    if SCALED and not NATIVE:
        key = _decode_e4m3(key)
    dots = tl.dot(key, queries, input_precision="ieee")
    dots = tl.permute(tl.reshape(dots, (KEYS, QUERIES // LANES, HALF, LANES, 2)), (0, 1, 3, 2, 4))
    dots = tl.reshape(dots, (KEYS, QUERIES, HEADS_WIDE))
    apart = tl.permute(tl.reshape(weight, (1, QUERIES // LANES, HALF, LANES, 2)), (0, 1, 3, 2, 4))
    total = _add_heads(dots, tl.reshape(apart, (1, QUERIES, HEADS_WIDE)), tl.zeros((KEYS, QUERIES), tl.float32), SCALED)
    if SCALED:
        total *= scale[:, None]
    return total
