"""Triton: which experts a token goes to, and the order in which the grouped products take the tokens.

Three launches, two for at most :data:`ALONE` tokens: the gate's product in parts, the choice of experts, and the
places. A place is a row of the sorted work: expert after expert, each expert's rows padded to whole blocks, tokens of
an expert in order. Places come from counts and prefix sums alone, never from atomics, so they are always the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

ALONE = 8
"""Tokens that one program routes and places by itself; more are first counted, in chunks of at least as many."""
MOST_CHUNK = 64
PROGRAMS = 132
SHARE = 256
"""Columns of a token that one program multiplies at the least; more programs share a token where there are few."""
MOST_SPLITS = 8


@dataclass(frozen=True)
class Routing:
    """Experts of T tokens, and the work that follows from them, in blocks of ``rows`` places."""

    weights: Tensor
    """[T, k] float32, best expert first."""
    experts: Tensor
    """[T, k] int32."""
    place: Tensor
    """[T, k] int32: the row of the sorted work that holds this token and expert."""
    pairs: Tensor
    """[blocks * rows] int32: token * k + which of its experts, by place; undefined where a block is not full."""
    block_expert: Tensor
    """[blocks] int32, defined for the first ``used``."""
    used: Tensor
    """[1] int32."""
    rows: int


@triton.jit
def follow(CHAINED: tl.constexpr):
    """Waits for the launch before, which let this one start early, and lets the next one start."""
    if CHAINED:
        gdc_wait()
        gdc_launch_dependents()


@triton.jit(do_not_specialize=["tokens"])
def score(
    x, gate, parts, tokens, x_stride, gate_stride, hidden, experts, share,
    TOKENS: tl.constexpr, EXPERTS: tl.constexpr, DEPTH: tl.constexpr, EVEN: tl.constexpr,
    CHAINED: tl.constexpr,
):  # fmt: skip
    """Products of a chunk of tokens with all experts over a share of the columns."""
    follow(CHAINED)
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    split, expert, depth = tl.program_id(1), tl.arange(0, EXPERTS), tl.arange(0, DEPTH)
    x += token[:, None].to(tl.int64) * x_stride
    gate += expert[:, None].to(tl.int64) * gate_stride
    total = tl.zeros((TOKENS, EXPERTS), tl.float32)
    stop = tl.minimum((split + 1) * share, hidden)
    for begin in range(split * share, stop, DEPTH):
        column = begin + depth[None, :]
        if EVEN:
            some = tl.load(x + column, mask=(token < tokens)[:, None], other=0.0)
            weight = tl.load(gate + column, mask=(expert < experts)[:, None], other=0.0)
        else:
            some = tl.load(x + column, mask=(token < tokens)[:, None] & (column < stop), other=0.0)
            weight = tl.load(gate + column, mask=(expert < experts)[:, None] & (column < stop), other=0.0)
        total = tl.dot(some, tl.trans(weight), total, input_precision="ieee")
    parts += (split * tokens + token[:, None]).to(tl.int64) * experts + expert[None, :]
    tl.store(parts, total, mask=(token < tokens)[:, None] & (expert < experts)[None, :])


@triton.jit
def _firsts(counts, ROWS: tl.constexpr):
    """First block of each expert, and the blocks that it fills."""
    blocks = tl.cdiv(counts, ROWS)
    return tl.cumsum(blocks, 0) - blocks, blocks


@triton.jit
def _write_blocks(first, blocks, block_expert, used, begin, step, EXPERTS: tl.constexpr):
    expert = tl.arange(0, EXPERTS)
    for block in range(begin, tl.max(blocks, 0), step):
        tl.store(block_expert + first + block, expert, mask=block < blocks)
    if begin == 0:
        tl.store(used, tl.sum(blocks, 0))


@triton.jit
def _write_places(chosen, numbers, before, pair, inside, pairs, place):
    """Places of a chunk: those before it, by expert, and the tokens of the chunk before each token."""
    here = tl.gather(before[None, :] + tl.cumsum(chosen, 0) - chosen, numbers, 1)
    tl.store(pairs + here, pair, mask=inside)
    tl.store(place + pair, here, mask=inside)


@triton.jit(do_not_specialize=["tokens"])
def choose(
    parts, like, weights, numbers_out, counts, pairs, place, block_expert, used, tokens, experts,
    SPLITS: tl.constexpr, RENORMALISE: tl.constexpr, ALONE: tl.constexpr, TOKENS: tl.constexpr, EXPERTS: tl.constexpr,
    TOP: tl.constexpr, TOP_WIDE: tl.constexpr, ROWS: tl.constexpr, CHAINED: tl.constexpr,
):  # fmt: skip
    """The best experts of a chunk of tokens and their weights; alone, also the places, else each expert's count."""
    follow(CHAINED)
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    expert, which = tl.arange(0, EXPERTS), tl.arange(0, TOP_WIDE)
    real, there = (expert < experts)[None, :], (token < tokens)[:, None]
    logits = tl.zeros((TOKENS, EXPERTS), tl.float32)
    for split in tl.static_range(SPLITS):
        at = (split * tokens + token[:, None]).to(tl.int64) * experts + expert[None, :]
        logits += tl.load(parts + at, mask=there & real, other=0.0)
    logits = logits.to(like.dtype.element_ty).to(tl.float32)
    order = tl.where(logits == logits, logits + 0.0, -float("inf")).to(tl.int32, bitcast=True)
    key = ((order ^ ((order >> 31) & 0x7FFFFFFF)).to(tl.int64) << 16) | (65535 - expert)[None, :].to(tl.int64)
    key = tl.where(real, key, -(1 << 62))
    chosen = tl.zeros((TOKENS, EXPERTS), tl.int32)
    numbers = tl.zeros((TOKENS, TOP_WIDE), tl.int32)
    values = tl.full((TOKENS, TOP_WIDE), -float("inf"), tl.float32)
    for number in range(TOP):
        most = tl.max(key, 1)
        best = 65535 - (most & 65535).to(tl.int32)
        hit = expert[None, :] == best[:, None]
        value = (most >> 16).to(tl.int32)
        value = (value ^ ((value >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)
        numbers = tl.where((which == number)[None, :], best[:, None], numbers)
        values = tl.where((which == number)[None, :], value[:, None], values)
        chosen = tl.where(hit, 1, chosen)
        key = tl.where(hit, -(1 << 62), key)
    peak = tl.sum(tl.where((which == 0)[None, :], values, 0.0), 1)
    peak = tl.where(peak > -float("inf"), peak, float("nan"))  # without a number to compare with there is no weight
    share = tl.where((which < TOP)[None, :], tl.exp(values - peak[:, None]), 0.0)
    everything = share if RENORMALISE else tl.where(real, tl.exp(logits - peak[:, None]), 0.0)
    out, inside = token[:, None] * TOP + which[None, :], there & (which < TOP)[None, :]
    tl.store(weights + out, share / tl.sum(everything, 1)[:, None], mask=inside)
    tl.store(numbers_out + out, numbers, mask=inside)
    chosen = tl.where(there, chosen, 0)
    count = tl.sum(chosen, 0)
    if ALONE:
        first, blocks = _firsts(count, ROWS)
        _write_blocks(first, blocks, block_expert, used, 0, 1, EXPERTS)
        _write_places(chosen, numbers, first * ROWS, out, inside, pairs, place)
    else:
        tl.store(counts + tl.program_id(0) * EXPERTS + expert, count)


@triton.jit(do_not_specialize=["tokens", "chunks"])
def order(
    numbers_in, counts, pairs, place, block_expert, used, tokens, chunks,
    TOKENS: tl.constexpr, EXPERTS: tl.constexpr, TOP: tl.constexpr, TOP_WIDE: tl.constexpr, ROWS: tl.constexpr,
    CHUNKS: tl.constexpr, CHAINED: tl.constexpr,
):  # fmt: skip
    """Places of a chunk of tokens, from the counts of all chunks."""
    follow(CHAINED)
    own = tl.program_id(0)
    token = own * TOKENS + tl.arange(0, TOKENS)
    expert, which = tl.arange(0, EXPERTS), tl.arange(0, TOP_WIDE)
    count, before = tl.zeros((EXPERTS,), tl.int32), tl.zeros((EXPERTS,), tl.int32)
    for begin in range(0, chunks, CHUNKS):
        chunk = begin + tl.arange(0, CHUNKS)
        some = tl.load(counts + chunk[:, None] * EXPERTS + expert[None, :], mask=(chunk < chunks)[:, None], other=0)
        count += tl.sum(some, 0)
        before += tl.sum(tl.where((chunk < own)[:, None], some, 0), 0)
    first, blocks = _firsts(count, ROWS)
    _write_blocks(first, blocks, block_expert, used, own, chunks, EXPERTS)
    pair, inside = token[:, None] * TOP + which[None, :], (token < tokens)[:, None] & (which < TOP)[None, :]
    numbers = tl.load(numbers_in + pair, mask=inside, other=0)
    chosen = tl.zeros((TOKENS, EXPERTS), tl.int32)
    for number in tl.static_range(TOP):
        one = tl.load(numbers_in + token * TOP + number, mask=token < tokens, other=-1)
        chosen = tl.where(expert[None, :] == one[:, None], 1, chosen)
    _write_places(chosen, numbers, first * ROWS + before, pair, inside, pairs, place)


def most_blocks(tokens: int, top: int, experts: int, rows: int) -> int:
    """Blocks of ``rows`` places that any routing of this many tokens may fill: what is launched."""
    pairs = tokens * top
    return min(pairs, (pairs + experts * (rows - 1)) // rows)


def route(x: Tensor, gate: Tensor, top: int, renormalise: bool, rows: int, chained: bool = False) -> Routing:
    """Routes ``x`` [T, hidden] by ``gate`` [E, hidden], T at least 1, into blocks of ``rows``; last axes contiguous.

    ``chained`` starts each launch while the one before ends, which needs compute capability 9.0.
    """
    early = {"launch_pdl": True} if chained else {}
    (tokens, hidden), experts, device = x.shape, len(gate), x.device
    wide, top_wide = max(16, triton.next_power_of_2(experts)), triton.next_power_of_2(top)
    tile = 16 if tokens <= 64 else 64
    depth = 64 if x.dtype.itemsize < 4 else 32
    tiles = triton.cdiv(tokens, tile)
    splits = max(1, min(MOST_SPLITS, PROGRAMS // tiles, triton.cdiv(hidden, SHARE)))
    splits = 1 << (splits.bit_length() - 1)
    share = triton.cdiv(triton.cdiv(hidden, splits), depth) * depth
    splits = triton.cdiv(hidden, share)
    parts = torch.empty(splits, tokens, experts, dtype=torch.float32, device=device)
    score[(tiles, splits)](
        x, gate, parts, tokens, x.stride(0), gate.stride(0), hidden, experts, share, tile, wide, depth,
        hidden % share == 0, chained, num_warps=4, num_stages=4, **early,
    )  # fmt: skip
    blocks = most_blocks(tokens, top, experts, rows)
    weights = torch.empty(tokens, top, dtype=torch.float32, device=device)
    numbers, place = torch.empty(2, tokens, top, dtype=torch.int32, device=device)
    pairs = torch.empty(blocks * rows, dtype=torch.int32, device=device)
    block_expert = torch.empty(blocks, dtype=torch.int32, device=device)
    used = torch.empty(1, dtype=torch.int32, device=device)
    alone = tokens <= ALONE
    chunk = triton.next_power_of_2(tokens if alone else max(ALONE, triton.cdiv(tokens, PROGRAMS)))
    chunk = min(chunk, MOST_CHUNK)
    chunks, warps = triton.cdiv(tokens, chunk), max(1, min(16, chunk * wide // 256))
    counts = used if alone else torch.empty(chunks, wide, dtype=torch.int32, device=device)
    choose[(chunks,)](
        parts, x, weights, numbers, counts, pairs, place, block_expert, used, tokens, experts, splits, renormalise,
        alone, chunk, wide, top, top_wide, rows, chained, num_warps=warps, **early,
    )  # fmt: skip
    if not alone:
        order[(chunks,)](
            numbers, counts, pairs, place, block_expert, used, tokens, chunks, chunk, wide, top, top_wide, rows,
            min(64, triton.next_power_of_2(chunks)), chained, num_warps=max(4, min(8, warps)), **early,
        )  # fmt: skip
    return Routing(weights, numbers, place, pairs, block_expert, used, rows)
