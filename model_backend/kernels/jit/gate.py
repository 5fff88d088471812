"""Triton: exact top-k of long rows in one pass over them: a gate from a sample, then the exact choice of what passed.

A sample of a row, one place at random in each of equal steps, gives a value that the wanted scores reach and few others
do. Places that reach it are gathered in order; the k-th best of these is found bit by bit in registers. The gate is
only a guess of what to look at: a row where fewer than k passed, or more than there is room for, is left to the radix
selection, so the result is exact whatever the scores are.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from keyeloop.model_backend.kernels.jit.ordering import before, comparable, ordered, part_of, placed, score_of

_MIX = 2654435761
SCATTER = tl.constexpr(_MIX)


def sampled_places(length: int, sample: int) -> Tensor:
    """Places [at most ``sample``] that decide the gate of a row of ``length`` scores."""
    step = -(-length // sample)
    number = torch.arange(sample)
    places = number * step + ((number * _MIX % 2**32) >> 16) % step
    return places[places < length]


@triton.jit
def _reached(values, wanted):
    """The greatest number that ``wanted`` of ``values`` reach; values of 0 do not count."""
    bound = tl.zeros((), tl.uint32)
    bit = tl.full((), 0x80000000, tl.uint32)
    for _ in range(32):
        bound = tl.where(tl.sum((values >= (bound | bit)).to(tl.int32), 0) >= wanted, bound | bit, bound)
        bit = bit >> 1
    return bound


@triton.jit(do_not_specialize=["topk"], do_not_specialize_on_alignment=["positions"])
def set_gates(scores, positions, gates, stride, topk, ROOM: tl.constexpr, SAMPLE: tl.constexpr):
    """Writes each row's gate; minus infinity, which all pass, to rows that fit the room."""
    row = tl.program_id(0)
    length = tl.load(positions + row) + 1
    gate = tl.full((), float("-inf"), tl.float32)
    if length > ROOM:
        step = tl.cdiv(length, SAMPLE)
        number = tl.arange(0, SAMPLE)
        place = number * step + ((number.to(tl.uint32) * SCATTER) >> 16).to(tl.int32) % step
        inside = place < length
        value = tl.where(inside, ordered(scores + row.to(tl.int64) * stride + place, inside), 0)
        share = topk / step
        spread = tl.where(step > 1, 6 * tl.sqrt(share) + 2, 0.0)
        gate = score_of(_reached(value, (share + spread).to(tl.int32)))
    tl.store(gates + row, gate)


@triton.jit(do_not_specialize=["topk"], do_not_specialize_on_alignment=["positions"])
def count_passing(scores, positions, gates, tallies, stride, topk, BLOCK: tl.constexpr):
    """How many scores of each part are above their row's gate, and how many equal it."""
    row, split, splits = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    length = tl.load(positions + row) + 1
    if length > topk:
        start, stop = part_of(length, split, splits, BLOCK)
        gate = tl.load(gates + row)
        above = tl.zeros((), tl.int32)
        equal = tl.zeros((), tl.int32)
        for place in range(start, stop, BLOCK):
            places = place + tl.arange(0, BLOCK)
            mask = places < stop
            score = comparable(scores + row.to(tl.int64) * stride + places, mask)
            above += tl.sum((mask & (score > gate)).to(tl.int32), 0)
            equal += tl.sum((mask & (score == gate)).to(tl.int32), 0)
        tl.store(tallies + (row * splits + split) * 2, above)
        tl.store(tallies + (row * splits + split) * 2 + 1, equal)


@triton.jit(do_not_specialize=["topk"], do_not_specialize_on_alignment=["positions"])
def gather_passing(
    scores, positions, gates, tallies, passing, passed, stride, topk,
    ROOM: tl.constexpr, SHARED: tl.constexpr, MOST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Places that pass the gate, ascending, and how many there are. Of those that equal it, ``topk`` are enough."""
    row, split, splits = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    length = tl.load(positions + row) + 1
    if length > topk:
        start, stop = part_of(length, split, splits, BLOCK)
        gate = tl.load(gates + row)
        passing += row.to(tl.int64) * ROOM
        above, equal = before(tallies, row, split, splits, SHARED, MOST)
        for place in range(start, stop, BLOCK):
            places = place + tl.arange(0, BLOCK)
            mask = places < stop
            score = comparable(scores + row.to(tl.int64) * stride + places, mask)
            better, same = mask & (score > gate), mask & (score == gate)
            index, chosen, above, equal = placed(better, same, above, equal, topk)
            tl.store(passing + index, places, mask=chosen & (index < ROOM))
        if split == splits - 1:
            tl.store(passed + row, above + tl.minimum(equal, topk))


@triton.jit(do_not_specialize=["topk"], do_not_specialize_on_alignment=["positions"])
def choose(
    scores, positions, passing, passed, out, stride, topk,
    ALL: tl.constexpr, ROOM: tl.constexpr, FILL: tl.constexpr,
):  # fmt: skip
    """Writes the best of the places that passed, or of ``ALL`` places; leaves rows alone whose gate missed."""
    row = tl.program_id(0)
    length = tl.load(positions + row) + 1
    out += row.to(tl.int64) * topk
    if length > topk:
        count = length
        if not ALL:
            count = tl.load(passed + row)
            passing += row.to(tl.int64) * ROOM
        if (count >= topk) & (count <= ROOM):
            scores += row.to(tl.int64) * stride
            number = tl.arange(0, ROOM)
            here = number < count
            if not ALL:
                number = tl.load(passing + number, mask=here, other=0)
            value = tl.where(here, ordered(scores + number, here), 0)
            bound = _reached(value, topk)
            room = topk - tl.sum((value > bound).to(tl.int32), 0)
            above = tl.zeros((), tl.int32)
            equal = tl.zeros((), tl.int32)
            for start in range(0, count, FILL):
                place = start + tl.arange(0, FILL)
                inside = place < count
                if not ALL:
                    place = tl.load(passing + place, mask=inside, other=0)
                score = tl.where(inside, ordered(scores + place, inside), 0)
                index, chosen, above, equal = placed(score > bound, score == bound, above, equal, room)
                tl.store(out + index, place, mask=chosen)
    else:
        for start in range(0, topk, FILL):
            place = start + tl.arange(0, FILL)
            tl.store(out + place, tl.where(place < length, place, -1), mask=place < topk)
