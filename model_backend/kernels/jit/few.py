"""Triton: exact top-k of a few long rows in one launch, as decoding a small batch needs it.

Every program reads the same sample of its row, which gives a value that the wanted scores reach and few others do, and
lists which places of its own part reach it. The program that is the last of its row to finish brings these lists
together and finds the k-th best of them bit by bit. Nobody waits for anybody. The gate is only a guess of what to look
at: where too few or too many reached it, the last program goes through its row alone, digit by digit, so the result is
exact whatever the scores are.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from keyeloop.model_backend.kernels.jit.ordering import comparable, ordered, part_of, placed, score_of

PROGRAMS = 128
"""Programs of a launch; a row has a power of two of them, at most :data:`SPLITS`."""
SPLITS = 64
BLOCK, SAMPLE, ROOM, FILL, WARPS = 2048, 4096, 8192, 1024, 16
LANES = 128
"""Places of each list that are brought together at a time."""
SCATTER = tl.constexpr(2654435761)
BINS = tl.constexpr(256)
BITS = tl.constexpr(16)
"""How far a gate is told, from the first bit in which sampled scores differ."""


@triton.jit
def _reached(values, wanted, FINE: tl.constexpr):
    """A number that just ``wanted`` of ``values`` reach; where ties leave none, the greatest that so many do.

    It is looked for in ``FINE`` bits from the first in which values differ, and may be lower for want of more. Values
    of 0 do not count; 0 where not so many are over 0.
    """
    there = values > 0
    low = tl.min(tl.where(there, values, 0xFFFFFFFF), 0)
    apart = tl.max(values, 0) ^ low
    for step in tl.static_range(5):
        apart = apart | (apart >> (1 << step))
    enough = tl.sum(there.to(tl.int32), 0) >= wanted
    bound = tl.where(enough, low & (apart ^ 0xFFFFFFFF), 0)
    bit = tl.where(enough, apart ^ (apart >> 1), 0)
    end = (bit >> 1) >> (FINE - 1)
    while bit > end:
        count = tl.sum((values >= (bound | bit)).to(tl.int32), 0)
        bound = tl.where(count >= wanted, bound | bit, bound)
        bit = tl.where(count == wanted, 0, bit >> 1)
    return bound


@triton.jit
def _gate(scores, length, topk, SAMPLE: tl.constexpr):
    """What about ``topk`` scores of the row reach, and seldom fewer; minus infinity where the sample is too poor."""
    step = tl.cdiv(length, SAMPLE)
    number = tl.arange(0, SAMPLE)
    place = number * step + ((number.to(tl.uint32) * SCATTER) >> 16).to(tl.int32) % step
    inside = place < length
    value = tl.where(inside, ordered(scores + place, inside), 0)
    share = topk / step
    reached = _reached(value, (share + 6 * tl.sqrt(share) + 2).to(tl.int32), BITS)
    return tl.where(reached > 0, score_of(reached), float("-inf"))


@triton.jit
def _list(scores, passing, gate, start, stop, BLOCK: tl.constexpr):
    """Writes the places from ``start`` to ``stop`` whose scores reach the gate to ``passing``; how many they are."""
    count = tl.zeros((), tl.int32)
    for place in range(start, stop, BLOCK):
        places = place + tl.arange(0, BLOCK)
        mask = places < stop
        reaches = mask & (comparable(scores + places, mask) >= gate)
        index = count + tl.cumsum(reaches.to(tl.int32), 0) - 1
        tl.store(passing + index, places, mask=reaches)
        count += tl.sum(reaches.to(tl.int32), 0)
    return count


@triton.jit
def _bring_together(passing, counts, listed, share, splits, SPLITS: tl.constexpr, LANES: tl.constexpr):
    """Copies the list of every part, which begins where its part does, to ``listed``, one behind the other."""
    part, lane = tl.arange(0, SPLITS), tl.arange(0, LANES)
    count = tl.load(counts + part, mask=part < splits, other=0)
    first = tl.cumsum(count, 0) - count
    for begin in range(0, tl.max(count, 0), LANES):
        there = (begin + lane)[None, :] < count[:, None]
        place = tl.load(passing + part[:, None] * share + (begin + lane)[None, :], mask=there, other=0)
        tl.store(listed + first[:, None] + (begin + lane)[None, :], place, mask=there)


@triton.jit
def _choose(scores, listed, count, out, topk, ALL: tl.constexpr, ROOM: tl.constexpr):
    """Writes the ``topk`` best of the ``count`` places of ``listed``, or of the first ``count`` places."""
    number = tl.arange(0, ROOM)
    here = number < count
    place = number
    if not ALL:
        place = tl.load(listed + number, mask=here, other=0)
    value = tl.where(here, ordered(scores + place, here), 0)
    bound = _reached(value, topk, 32)
    room = topk - tl.sum((value > bound).to(tl.int32), 0)
    none = tl.zeros((), tl.int32)
    index, chosen, _, _ = placed(value > bound, value == bound, none, none, room)
    tl.store(out + index, place, mask=chosen)


@triton.jit
def _go_through(scores, length, out, topk, BLOCK: tl.constexpr):
    """Writes the ``topk`` best places of a whole row: four digits of the k-th best, then what reaches it."""
    prefix = tl.zeros((), tl.uint32)
    room = topk
    bins = tl.arange(0, BINS)
    for digit in tl.static_range(4):
        found = tl.zeros((BINS,), tl.int32)
        for start in range(0, length, BLOCK):
            place = start + tl.arange(0, BLOCK)
            mask = place < length
            value = ordered(scores + place, mask)
            if digit > 0:
                mask = mask & (value >> (32 - 8 * digit) == prefix)
            found += tl.histogram(((value >> (24 - 8 * digit)) & 0xFF).to(tl.int32), BINS, mask=mask)
        best = tl.sum((tl.cumsum(found, 0, reverse=True) >= room).to(tl.int32), 0) - 1
        room -= tl.sum(tl.where(bins > best, found, 0), 0)
        prefix = (prefix << 8) | best.to(tl.uint32)
    above = tl.zeros((), tl.int32)
    equal = tl.zeros((), tl.int32)
    for start in range(0, length, BLOCK):
        place = start + tl.arange(0, BLOCK)
        mask = place < length
        value = ordered(scores + place, mask)
        index, chosen, above, equal = placed(mask & (value > prefix), mask & (value == prefix), above, equal, room)
        tl.store(out + index, place, mask=chosen)


@triton.jit(do_not_specialize=["topk"], do_not_specialize_on_alignment=["positions"])
def choose_few(
    scores, positions, arrived, counts, passing, listed, out, stride, topk,
    SPLITS: tl.constexpr, BLOCK: tl.constexpr, SAMPLE: tl.constexpr, ROOM: tl.constexpr, FILL: tl.constexpr,
    LANES: tl.constexpr,
):  # fmt: skip
    """``arrived`` [R] are zeros, and are left so; ``counts`` [R, splits], ``passing`` like ``scores`` and ``listed``
    [R, ROOM] are ints that hold nothing yet.
    """
    row, split, splits = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    length = tl.load(positions + row) + 1
    scores += row * stride
    out += row * topk
    if length <= topk:
        if split == 0:
            for start in range(0, topk, FILL):
                place = start + tl.arange(0, FILL)
                tl.store(out + place, tl.where(place < length, place, -1), mask=place < topk)
    elif length <= ROOM:
        if split == 0:
            _choose(scores, listed, length, out, topk, True, ROOM)
    else:
        passing += row * stride
        counts += row * splits
        listed += row * ROOM
        start, stop = part_of(length, split, splits, BLOCK)
        share = tl.cdiv(tl.cdiv(length, BLOCK), splits) * BLOCK
        gate = _gate(scores, length, topk, SAMPLE)
        tl.store(counts + split, _list(scores, passing + start, gate, start, stop, BLOCK))
        tl.debug_barrier()
        if tl.atomic_add(arrived + row, 1, sem="acq_rel") == splits - 1:
            tl.debug_barrier()
            part = tl.arange(0, SPLITS)
            count = tl.sum(tl.load(counts + part, mask=part < splits, other=0), 0)
            if (count >= topk) & (count <= ROOM):
                _bring_together(passing, counts, listed, share, splits, SPLITS, LANES)
                tl.debug_barrier()
                _choose(scores, listed, count, out, topk, False, ROOM)
            else:
                _go_through(scores, length, out, topk, BLOCK)
            tl.store(arrived + row, 0)


def fits(rows: int, topk: int) -> bool:
    """Whether so many rows are few, and ``topk`` places small beside what one program holds."""
    return rows <= 8 and 4 * topk <= ROOM


def top_positions(
    scores: Tensor, positions: Tensor, topk: int, out: Tensor, zeros: Tensor | None = None
) -> None:  # fmt: skip
    """Writes to ``out`` [R, topk] int32 the best of each row's scores [R, S] at places 0 to ``positions`` [R].

    ``zeros`` [at least R] int32 are zeros again afterwards; None takes a launch to make some.
    """
    rows, width = scores.shape
    most = max(1, min(SPLITS, PROGRAMS // rows, triton.cdiv(width, BLOCK)))
    splits = 1 << (most.bit_length() - 1)
    arrived = torch.zeros(rows, dtype=torch.int32, device=scores.device) if zeros is None else zeros
    counts = torch.empty(rows, splits, dtype=torch.int32, device=scores.device)
    passing = torch.empty(rows, scores.stride(0), dtype=torch.int32, device=scores.device)
    listed = torch.empty(rows, ROOM, dtype=torch.int32, device=scores.device)
    choose_few[(rows, splits)](
        scores, positions, arrived, counts, passing, listed, out, scores.stride(0), topk,
        SPLITS, BLOCK, SAMPLE, ROOM, FILL, LANES, num_warps=WARPS,
    )  # fmt: skip
