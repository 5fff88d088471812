"""Triton: the two grouped matrix products of the experts, and the sum of each token's experts.

Weights stream through tensor descriptors: by the copy engine from compute capability 9.0 on, by Triton's own pointers
before it. A tile is one block of sorted places (:mod:`~keyeloop.model_backend.kernels.jit.moe_route`), all of one
expert, times some columns; adjacent tiles share the block. Rows of a block that no token fills are computed from
whatever is there and read by nobody. All sums have one order: results are the same bits every time.
"""

from __future__ import annotations

import triton
import triton.language as tl

from keyeloop.model_backend.kernels.jit.moe_route import follow


@triton.jit(do_not_specialize=["tokens"])
def gate_up(
    x, w13, pairs, block_expert, used, out, tokens, x_stride, hidden, inter,
    TOP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, EVEN: tl.constexpr,
    JOINED: tl.constexpr, SWAPPED: tl.constexpr, LASTING: tl.constexpr, COPIED: tl.constexpr,
    CHAINED: tl.constexpr,
):  # fmt: skip
    """``silu(x @ gate) * (x @ up)`` of sorted places, tile after tile; where COPIED, ``out`` is a descriptor."""
    follow(CHAINED)
    tiles = tl.cdiv(inter, COLUMNS)
    row, depth, lane = tl.arange(0, ROWS), tl.arange(0, DEPTH), tl.arange(0, COLUMNS)
    WIDE: tl.constexpr = 2 * COLUMNS if JOINED else COLUMNS
    for tile in tl.range(tl.program_id(0), tl.load(used) * tiles, tl.num_programs(0), flatten=LASTING):
        block, column = tile // tiles, tile % tiles * COLUMNS
        expert = tl.load(block_expert + block)
        place = block.to(tl.int64) * ROWS + row
        token = tl.load(pairs + place) // TOP
        token = tl.where((token >= 0) & (token < tokens), token, 0)  # a place that no token fills holds any number
        rows = x + token[:, None].to(tl.int64) * x_stride + depth[None, :]
        total = tl.zeros((WIDE, ROWS) if SWAPPED else (ROWS, WIDE), tl.float32)
        other = total
        for begin in range(0, hidden, DEPTH):
            if EVEN:
                some = tl.load(rows + begin)
            else:
                some = tl.load(rows + begin, mask=(begin + depth < hidden)[None, :], other=0.0)
            weight = tl.reshape(w13.load([expert, 0, column, begin]), (WIDE, DEPTH))
            if SWAPPED:
                total = tl.dot(weight, tl.trans(some), total, input_precision="ieee")
            else:
                total = tl.dot(some, tl.trans(weight), total, input_precision="ieee")
            if not JOINED:
                second = tl.reshape(w13.load([expert, 1, column, begin]), (WIDE, DEPTH))
                if SWAPPED:
                    other = tl.dot(second, tl.trans(some), other, input_precision="ieee")
                else:
                    other = tl.dot(some, tl.trans(second), other, input_precision="ieee")
        if JOINED:
            if SWAPPED:
                gate, up = tl.split(tl.permute(tl.reshape(total, (2, COLUMNS, ROWS)), (1, 2, 0)))
            else:
                gate, up = tl.split(tl.permute(tl.reshape(total, (ROWS, 2, COLUMNS)), (0, 2, 1)))
        else:
            gate, up = total, other
        active = (gate / (1.0 + tl.exp(-gate)) * up).to(w13.dtype)
        if SWAPPED:
            active = tl.trans(active)
        if COPIED:
            out.store([block * ROWS, column], active)
        else:
            at = out + place[:, None] * inter + (column + lane)[None, :]
            tl.store(at, active, mask=(column + lane < inter)[None, :])


@triton.jit
def down(
    active, w2, block_expert, used, out, hidden, inter,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, SWAPPED: tl.constexpr, LASTING: tl.constexpr,
    COPIED: tl.constexpr, CHAINED: tl.constexpr,
):  # fmt: skip
    """``active @ down`` of sorted places, tile after tile; where COPIED, ``out`` is a descriptor."""
    follow(CHAINED)
    tiles = tl.cdiv(hidden, COLUMNS)
    row, lane = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    for tile in tl.range(tl.program_id(0), tl.load(used) * tiles, tl.num_programs(0), flatten=LASTING):
        block, column = tile // tiles, tile % tiles * COLUMNS
        expert = tl.load(block_expert + block)
        total = tl.zeros((COLUMNS, ROWS) if SWAPPED else (ROWS, COLUMNS), tl.float32)
        for begin in range(0, inter, DEPTH):
            some = active.load([block * ROWS, begin])
            weight = tl.reshape(w2.load([expert, column, begin]), (COLUMNS, DEPTH))
            if SWAPPED:
                total = tl.dot(weight, tl.trans(some), total, input_precision="ieee")
            else:
                total = tl.dot(some, tl.trans(weight), total, input_precision="ieee")
        result = total.to(w2.dtype)
        if SWAPPED:
            result = tl.trans(result)
        if COPIED:
            out.store([block * ROWS, column], result)
        else:
            at = out + (block.to(tl.int64) * ROWS + row)[:, None] * hidden + (column + lane)[None, :]
            tl.store(at, result, mask=(column + lane < hidden)[None, :])


@triton.jit
def combine(rows, place, weights, out, hidden, TOP: tl.constexpr, COLUMNS: tl.constexpr, CHAINED: tl.constexpr):
    """Weighted sum of a token's experts in float32, best expert first."""
    follow(CHAINED)
    token, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((COLUMNS,), tl.float32)
    for number in tl.static_range(TOP):
        row = tl.load(place + token * TOP + number).to(tl.int64)
        weight = tl.load(weights + token * TOP + number)
        total += weight * tl.load(rows + row * hidden + column, mask=column < hidden, other=0.0).to(tl.float32)
    tl.store(out + token * hidden + column, total.to(out.dtype.element_ty), mask=column < hidden)
