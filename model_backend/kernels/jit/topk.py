"""Triton: exact top-k of rows of float32 scores by radix selection; ties to the lowest place, places ascending.

Four counting passes narrow the k-th best value down to its last bit, eight bits a pass; then every part of a row knows
from counts how many places it writes and where. Nothing is buffered by value, so no distribution of scores can
overflow anything. A row may be shared by several programs; integer counts make their order irrelevant.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

PROGRAMS = 264
BLOCK = 2048
BINS = tl.constexpr(256)


@triton.jit
def _ordered(scores, mask):
    """Unsigned numbers in the order of the scores: zeros of either sign are equal, NaN is minus infinity."""
    score = tl.load(scores, mask=mask, other=0.0)
    score = tl.where(score == score, score, float("-inf"))
    score = tl.where(score == 0.0, 0.0, score)
    bits = score.to(tl.uint32, bitcast=True)
    return tl.where(bits >> 31 == 1, bits ^ 0xFFFFFFFF, bits | 0x80000000)


@triton.jit
def _narrow(counts, topk, PASSES: tl.constexpr):
    """First ``8 * PASSES`` bits of the k-th best, and how many scores that begin with them are to be taken."""
    prefix = tl.zeros((), tl.uint32)
    room = topk
    bins = tl.arange(0, BINS)
    for number in tl.static_range(PASSES):
        count = tl.load(counts + number * BINS + bins)
        digit = tl.sum((tl.cumsum(count, 0, reverse=True) >= room).to(tl.int32), 0) - 1
        room -= tl.sum(tl.where(bins > digit, count, 0), 0)
        prefix = (prefix << 8) | digit.to(tl.uint32)
    return prefix, room


@triton.jit
def _part(length, split, splits, BLOCK: tl.constexpr):
    share = tl.cdiv(tl.cdiv(length, BLOCK), splits) * BLOCK
    start = split * share
    return start, tl.minimum(start + share, length)


@triton.jit(do_not_specialize=["topk"], do_not_specialize_on_alignment=["positions"])
def _count(scores, positions, counts, stride, topk, PASS: tl.constexpr, BLOCK: tl.constexpr):
    row, split = tl.program_id(0), tl.program_id(1)
    length = tl.load(positions + row) + 1
    start, stop = _part(length, split, tl.num_programs(1), BLOCK)
    if (length > topk) & (start < stop):
        counts += row * 4 * BINS
        prefix, _ = _narrow(counts, topk, PASS)
        found = tl.zeros((BINS,), tl.int32)
        for place in range(start, stop, BLOCK):
            places = place + tl.arange(0, BLOCK)
            mask = places < stop
            value = _ordered(scores + row.to(tl.int64) * stride + places, mask)
            if PASS > 0:
                mask = mask & (value >> (32 - 8 * PASS) == prefix)
            digit = ((value >> (24 - 8 * PASS)) & 0xFF).to(tl.int32)
            found += tl.histogram(digit, BINS, mask=mask)
        tl.atomic_add(counts + PASS * BINS + tl.arange(0, BINS), found, mask=found > 0, sem="relaxed")


@triton.jit(do_not_specialize=["topk"], do_not_specialize_on_alignment=["positions"])
def _tally(scores, positions, counts, tallies, stride, topk, BLOCK: tl.constexpr):
    """How many scores of each part are above the k-th best, and how many equal it."""
    row, split, splits = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    length = tl.load(positions + row) + 1
    if length > topk:
        start, stop = _part(length, split, splits, BLOCK)
        boundary, _ = _narrow(counts + row * 4 * BINS, topk, 4)
        above = tl.zeros((), tl.int32)
        equal = tl.zeros((), tl.int32)
        for place in range(start, stop, BLOCK):
            places = place + tl.arange(0, BLOCK)
            mask = places < stop
            value = _ordered(scores + row.to(tl.int64) * stride + places, mask)
            above += tl.sum((mask & (value > boundary)).to(tl.int32), 0)
            equal += tl.sum((mask & (value == boundary)).to(tl.int32), 0)
        tl.store(tallies + (row * splits + split) * 2, above)
        tl.store(tallies + (row * splits + split) * 2 + 1, equal)


@triton.jit(do_not_specialize=["topk"], do_not_specialize_on_alignment=["positions"])
def _write(scores, positions, counts, tallies, out, stride, topk, SPLITS: tl.constexpr, BLOCK: tl.constexpr):
    row, split = tl.program_id(0), tl.program_id(1)
    length = tl.load(positions + row) + 1
    out += row.to(tl.int64) * topk
    if length > topk:
        start, stop = _part(length, split, SPLITS, BLOCK)
        boundary, room = _narrow(counts + row * 4 * BINS, topk, 4)
        above = tl.zeros((), tl.int32)
        equal = tl.zeros((), tl.int32)
        if SPLITS > 1:
            parts = tl.arange(0, SPLITS)
            earlier = tallies + (row * SPLITS + parts) * 2
            above += tl.sum(tl.load(earlier, mask=parts < split, other=0), 0)
            equal += tl.sum(tl.load(earlier + 1, mask=parts < split, other=0), 0)
        for place in range(start, stop, BLOCK):
            places = place + tl.arange(0, BLOCK)
            mask = places < stop
            value = _ordered(scores + row.to(tl.int64) * stride + places, mask)
            better, same = mask & (value > boundary), mask & (value == boundary)
            so_far = tl.cumsum(better.to(tl.int32) * 65536 + same.to(tl.int32), 0)
            tied = equal + (so_far & 0xFFFF)
            index = above + (so_far >> 16) + tl.minimum(tied, room) - 1
            tl.store(out + index, places, mask=better | (same & (tied <= room)))
            above += tl.sum(better.to(tl.int32), 0)
            equal += tl.sum(same.to(tl.int32), 0)
    else:
        start, stop = _part(topk, split, SPLITS, BLOCK)
        for place in range(start, stop, BLOCK):
            places = place + tl.arange(0, BLOCK)
            tl.store(out + places, tl.where(places < length, places, -1), mask=places < stop)


def top_positions(scores: Tensor, positions: Tensor, topk: int, out: Tensor) -> None:
    """Writes to ``out`` [R, topk] int32 the best of each row's scores [R, S] at places 0 to ``positions`` [R]."""
    rows, width = scores.shape
    splits = triton.next_power_of_2(max(1, min(PROGRAMS // rows, triton.cdiv(width, BLOCK), 64)))
    scored = width > topk
    counts = torch.zeros(rows, 4, 256, dtype=torch.int32, device=scores.device) if scored else out
    tallies = torch.empty(rows, splits, 2, dtype=torch.int32, device=scores.device) if splits > 1 else counts
    grid, stride = (rows, splits), scores.stride(0)
    if scored:
        for number in range(4):
            _count[grid](scores, positions, counts, stride, topk, number, BLOCK, num_warps=8)
        if splits > 1:
            _tally[grid](scores, positions, counts, tallies, stride, topk, BLOCK, num_warps=8)
    _write[grid](scores, positions, counts, tallies, out, stride, topk, splits, BLOCK, num_warps=8)
