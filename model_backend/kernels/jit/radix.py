"""Triton: exact top-k of rows by radix selection, in four counting passes over the scores.

They narrow the k-th best value down to its last bit, eight bits a pass; then every part of a row knows from counts how
many places it writes and where. Nothing is buffered by value, so no distribution of scores can overflow anything. A row
may be shared by several programs; integer counts make their order irrelevant. One kernel does the same for rows whose
gate missed, each by one program.
"""

from __future__ import annotations

import triton
import triton.language as tl

from keyeloop.model_backend.kernels.jit.ordering import before, failed, ordered, part_of, placed

BINS = tl.constexpr(256)


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


@triton.jit(do_not_specialize=["topk"], do_not_specialize_on_alignment=["positions"])
def count_digits(
    scores, positions, counts, stride, topk, PASS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Adds to ``counts`` [R, 4, 256] how often each next digit follows what the passes before have found."""
    row, split = tl.program_id(0), tl.program_id(1)
    length = tl.load(positions + row) + 1
    start, stop = part_of(length, split, tl.num_programs(1), BLOCK)
    if (length > topk) & (start < stop):
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


@triton.jit(do_not_specialize=["topk"], do_not_specialize_on_alignment=["positions"])
def tally(
    scores, positions, counts, tallies, stride, topk, BLOCK: tl.constexpr
):  # fmt: skip
    """How many scores of each part are above the k-th best, and how many equal it."""
    row, split, splits = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    length = tl.load(positions + row) + 1
    if length > topk:
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


@triton.jit(do_not_specialize=["topk"], do_not_specialize_on_alignment=["positions"])
def write_chosen(
    scores, positions, counts, tallies, out, stride, topk,
    SHARED: tl.constexpr, MOST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Writes the chosen places, ascending; to rows of at most ``topk`` scores all places, then -1."""
    row, split, splits = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    length = tl.load(positions + row) + 1
    out += row.to(tl.int64) * topk
    if length > topk:
        start, stop = part_of(length, split, splits, BLOCK)
        boundary, rest = _narrow(counts + row * 4 * BINS, topk, 4)
        above, equal = before(tallies, row, split, splits, SHARED, MOST)
        for place in range(start, stop, BLOCK):
            places = place + tl.arange(0, BLOCK)
            mask = places < stop
            value = ordered(scores + row.to(tl.int64) * stride + places, mask)
            better, same = mask & (value > boundary), mask & (value == boundary)
            index, chosen, above, equal = placed(better, same, above, equal, rest)
            tl.store(out + index, places, mask=chosen)
    else:
        start, stop = part_of(topk, split, splits, BLOCK)
        for place in range(start, stop, BLOCK):
            places = place + tl.arange(0, BLOCK)
            tl.store(out + places, tl.where(places < length, places, -1), mask=places < stop)


@triton.jit(do_not_specialize=["topk", "room"], do_not_specialize_on_alignment=["positions"])
def select_missed(scores, positions, passed, out, stride, topk, room, BLOCK: tl.constexpr):
    """All of the above for rows where under ``topk`` or over ``room`` places passed a gate, one program each."""
    row = tl.program_id(0)
    length = tl.load(positions + row) + 1
    count = tl.load(passed + row)
    if (length > topk) & failed(count, topk, room):
        scores += row.to(tl.int64) * stride
        out += row.to(tl.int64) * topk
        boundary = tl.zeros((), tl.uint32)
        rest = topk
        bins = tl.arange(0, BINS)
        for number in tl.static_range(4):
            found = tl.zeros((BINS,), tl.int32)
            for place in range(0, length, BLOCK):
                places = place + tl.arange(0, BLOCK)
                mask = places < length
                value = ordered(scores + places, mask)
                if number > 0:
                    mask = mask & (value >> (32 - 8 * number) == boundary)
                found += tl.histogram(((value >> (24 - 8 * number)) & 0xFF).to(tl.int32), BINS, mask=mask)
            digit = tl.sum((tl.cumsum(found, 0, reverse=True) >= rest).to(tl.int32), 0) - 1
            rest -= tl.sum(tl.where(bins > digit, found, 0), 0)
            boundary = (boundary << 8) | digit.to(tl.uint32)
        above = tl.zeros((), tl.int32)
        equal = tl.zeros((), tl.int32)
        for place in range(0, length, BLOCK):
            places = place + tl.arange(0, BLOCK)
            mask = places < length
            value = ordered(scores + places, mask)
            better, same = mask & (value > boundary), mask & (value == boundary)
            index, chosen, above, equal = placed(better, same, above, equal, rest)
            tl.store(out + index, places, mask=chosen)
