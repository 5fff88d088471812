"""Triton: exact top-k of rows by radix selection, in four counting passes over the scores.

They narrow the k-th best value down to its last bit, eight bits a pass; then every part of a row knows from counts how
many places it writes and where. Nothing is buffered by value, so no distribution of scores can overflow anything. A row
may be shared by several programs; integer counts make their order irrelevant. With ``passed``, how many places passed a
gate, only rows are done where that is under ``topk`` or over ``room``.
"""

from __future__ import annotations

import triton
import triton.language as tl

from keyeloop.model_backend.kernels.jit.ordering import ordered, part_of

BINS = tl.constexpr(256)


@triton.jit
def _asked(length, passed, row, topk, room, GATED: tl.constexpr):
    asked = length > topk
    if GATED:
        count = tl.load(passed + row, mask=asked, other=topk)
        asked = (count < topk) | (count > room)
    return asked


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


@triton.jit(do_not_specialize=["topk", "room"], do_not_specialize_on_alignment=["positions"])
def count_digits(
    scores, positions, passed, counts, stride, topk, room, GATED: tl.constexpr, PASS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Adds to ``counts`` [R, 4, 256] how often each next digit follows what the passes before have found."""
    row, split = tl.program_id(0), tl.program_id(1)
    length = tl.load(positions + row) + 1
    start, stop = part_of(length, split, tl.num_programs(1), BLOCK)
    if _asked(length, passed, row, topk, room, GATED) & (start < stop):
        counts += row * 4 * BINS
        prefix, _ = _narrow(counts, topk, PASS)
        found = tl.zeros((BINS,), tl.int32)
        for place in range(start, stop, BLOCK):
            places = place + tl.arange(0, BLOCK)
            mask = places < stop
            value = ordered(scores + row.to(tl.int64) * stride + places, mask)
            if PASS > 0:
                mask = mask & (value >> (32 - 8 * PASS) == prefix)
            digit = ((value >> (24 - 8 * PASS)) & 0xFF).to(tl.int32)
            found += tl.histogram(digit, BINS, mask=mask)
        tl.atomic_add(counts + PASS * BINS + tl.arange(0, BINS), found, mask=found > 0, sem="relaxed")


@triton.jit(do_not_specialize=["topk", "room"], do_not_specialize_on_alignment=["positions"])
def tally(
    scores, positions, passed, counts, tallies, stride, topk, room, GATED: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """How many scores of each part are above the k-th best, and how many equal it."""
    row, split, splits = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    length = tl.load(positions + row) + 1
    if _asked(length, passed, row, topk, room, GATED):
        start, stop = part_of(length, split, splits, BLOCK)
        boundary, _ = _narrow(counts + row * 4 * BINS, topk, 4)
        above = tl.zeros((), tl.int32)
        equal = tl.zeros((), tl.int32)
        for place in range(start, stop, BLOCK):
            places = place + tl.arange(0, BLOCK)
            mask = places < stop
            value = ordered(scores + row.to(tl.int64) * stride + places, mask)
            above += tl.sum((mask & (value > boundary)).to(tl.int32), 0)
            equal += tl.sum((mask & (value == boundary)).to(tl.int32), 0)
        tl.store(tallies + (row * splits + split) * 2, above)
        tl.store(tallies + (row * splits + split) * 2 + 1, equal)


@triton.jit(do_not_specialize=["topk", "room"], do_not_specialize_on_alignment=["positions"])
def write_chosen(
    scores, positions, passed, counts, tallies, out, stride, topk, room,
    GATED: tl.constexpr, SPLITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Writes the chosen places, ascending; to rows of at most ``topk`` scores all places, then -1."""
    row, split = tl.program_id(0), tl.program_id(1)
    length = tl.load(positions + row) + 1
    out += row.to(tl.int64) * topk
    if _asked(length, passed, row, topk, room, GATED):
        start, stop = part_of(length, split, SPLITS, BLOCK)
        boundary, rest = _narrow(counts + row * 4 * BINS, topk, 4)
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
            value = ordered(scores + row.to(tl.int64) * stride + places, mask)
            better, same = mask & (value > boundary), mask & (value == boundary)
            so_far = tl.cumsum(better.to(tl.int32) * 65536 + same.to(tl.int32), 0)
            tied = equal + (so_far & 0xFFFF)
            index = above + (so_far >> 16) + tl.minimum(tied, rest) - 1
            tl.store(out + index, places, mask=better | (same & (tied <= rest)))
            above += tl.sum(better.to(tl.int32), 0)
            equal += tl.sum(same.to(tl.int32), 0)
    elif not GATED:
        start, stop = part_of(topk, split, SPLITS, BLOCK)
        for place in range(start, stop, BLOCK):
            places = place + tl.arange(0, BLOCK)
            tl.store(out + places, tl.where(places < length, places, -1), mask=places < stop)
