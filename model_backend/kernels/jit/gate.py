"""Triton: exact top-k of long rows in one pass over them: a gate from a sample, marks of what passes, exact choice.

A sample of a row, one place at random in each of equal steps, gives a value that the wanted scores reach and few others
do. One bit a place says which reach it; they are listed in order, and the k-th best of these is found bit by bit in
registers. The gate is only a guess of what to look at: a row where fewer than k passed, or more than there is room for,
is left to the radix selection, so the result is exact whatever the scores are.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from keyeloop.model_backend.kernels.jit.ordering import ordered, placed, sampled_place, score_of

GATE_BITS = tl.constexpr(18)
"""Of a gate, behind those that all of the sample share; fewer make it lower, and let some more pass."""


@triton.jit
def _reached(values, wanted, BITS: tl.constexpr):
    """The greatest number that ``wanted`` of ``values`` reach, to ``BITS`` behind those that all share; 0 is none."""
    there = values > 0
    low = tl.min(tl.where(there, values, 0xFFFFFFFF), 0)
    apart = tl.max(values, 0) ^ low
    for step in tl.static_range(5):
        apart = apart | (apart >> (1 << step))
    enough = tl.sum(there.to(tl.int32), 0) >= wanted
    bound = tl.where(enough, low & (apart ^ 0xFFFFFFFF), 0)
    bit = tl.where(enough, apart ^ (apart >> 1), 0)
    end = (bit >> 1) >> (BITS - 1)
    while bit > end:
        bound = tl.where(tl.sum((values >= (bound | bit)).to(tl.int32), 0) >= wanted, bound | bit, bound)
        bit = bit >> 1
    return bound


@triton.jit(do_not_specialize=["topk"], do_not_specialize_on_alignment=["positions"])
def set_gates(
    scores, positions, gates, stride, topk,
    ROOM: tl.constexpr, SAMPLE: tl.constexpr, STEP: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """Writes each row's gate; minus infinity, which all pass, to rows that fit the room.

    ``scores`` [R, S] are the rows themselves or, PACKED, their sampled scores alone.
    """
    row = tl.program_id(0)
    length = tl.load(positions + row) + 1
    gate = tl.full((), float("-inf"), tl.float32)
    if length > ROOM:
        number = tl.arange(0, SAMPLE)
        place = sampled_place(number, STEP)
        inside = place < length
        if PACKED:
            place = number
        value = tl.where(inside, ordered(scores + row.to(tl.int64) * stride + place, inside), 0)
        share = topk / STEP
        reached = _reached(value, (share + 6 * tl.sqrt(share) + 2).to(tl.int32), GATE_BITS)
        gate = tl.where(reached > 0, score_of(reached), gate)
    tl.store(gates + row, gate)


@triton.jit
def _marked(below):
    """A word of each line [W, 32], a bit set where not ``below``: NaN passes, it is minus infinity where it matters."""
    bit = tl.full((), 1, tl.uint32) << tl.arange(0, 32).to(tl.uint32)
    return tl.sum(tl.where(below, 0, bit[None, :]), 1).to(tl.int32, bitcast=True)


@triton.jit(do_not_specialize=["topk"], do_not_specialize_on_alignment=["positions"])
def mark_passing(scores, positions, gates, marks, stride, mark_stride, topk, BLOCK: tl.constexpr):
    """One bit a place, 32 to a word of ``marks`` [R, words]: whether its score is not below its row's gate."""
    row = tl.program_id(0)
    length = tl.load(positions + row) + 1
    first = tl.program_id(1) * BLOCK
    if (length > topk) & (first < length):
        gate = tl.load(gates + row)
        place = first + tl.arange(0, BLOCK // 32)[:, None] * 32 + tl.arange(0, 32)[None, :]
        line = scores + row.to(tl.int64) * stride
        word = first // 32 + tl.arange(0, BLOCK // 32)
        mark = marks + row.to(tl.int64) * mark_stride + word
        if first + BLOCK <= length:
            tl.store(mark, _marked(tl.load(line + place) < gate))
        else:
            inside = place < length
            below = (tl.load(line + place, mask=inside, other=0.0) < gate) | (inside == 0)
            tl.store(mark, _marked(below), mask=word * 32 < length)


@triton.jit(do_not_specialize=["topk"], do_not_specialize_on_alignment=["positions"])
def list_passing(
    marks, positions, passing, passed, mark_stride, topk, ROOM: tl.constexpr, WORDS: tl.constexpr
):  # fmt: skip
    """Places that are marked, ascending, as far as there is room for them, and how many there are."""
    row = tl.program_id(0)
    length = tl.load(positions + row) + 1
    if length > topk:
        passing += row.to(tl.int64) * ROOM
        words = tl.cdiv(length, 32)
        count = tl.zeros((), tl.int32)
        for start in range(0, words, WORDS):
            index = start + tl.arange(0, WORDS)
            word = tl.load(marks + row.to(tl.int64) * mark_stride + index, mask=index < words, other=0)
            word = word.to(tl.uint32, bitcast=True)
            pairs = word - ((word >> 1) & 0x55555555)
            fours = (pairs & 0x33333333) + ((pairs >> 2) & 0x33333333)
            eights = (fours + (fours >> 4)) & 0x0F0F0F0F
            ones = ((eights * 0x01010101) >> 24).to(tl.int32)
            at = count + tl.cumsum(ones, 0) - ones
            count += tl.sum(ones, 0)
            for _ in range(tl.max(ones, 0)):
                lowest = word & (~word + 1)
                bit = (lowest.to(tl.float32).to(tl.int32, bitcast=True) >> 23) - 127
                tl.store(passing + at, index * 32 + bit, mask=(word > 0) & (at < ROOM))
                at += 1
                word = word ^ lowest
        tl.store(passed + row, count)


@triton.jit(do_not_specialize=["topk"], do_not_specialize_on_alignment=["positions"])
def choose(
    scores, positions, gates, passing, passed, out, stride, topk,
    ALL: tl.constexpr, LISTED: tl.constexpr, ROOM: tl.constexpr,
    LEAST: tl.constexpr, MOST: tl.constexpr, FILL: tl.constexpr,
):  # fmt: skip
    """Writes the best of the places that passed, or of ``ALL`` places; leaves rows alone whose gate missed.

    Done are rows where ``LEAST`` to ``MOST`` passed, with those that have no more than ``topk`` where LEAST is 0.
    ``scores`` [R, S] are by place or, LISTED, by number in ``passing``. A listed score below its gate says that two
    kernels disagree of it: then ``passed`` becomes 0, and the row is another's.
    """
    row = tl.program_id(0)
    length = tl.load(positions + row) + 1
    out += row.to(tl.int64) * topk
    if length > topk:
        count = length
        if not ALL:
            passed += row
            count = tl.load(passed)
            passing += row.to(tl.int64) * ROOM
        if (count >= topk) & (count >= LEAST) & (count <= MOST):
            scores += row.to(tl.int64) * stride
            number = tl.arange(0, MOST)
            here = number < count
            place = number
            if not ALL:
                place = tl.load(passing + number, mask=here, other=0)
            value = tl.where(here, ordered(scores + (number if LISTED else place), here), 0)
            bound = _reached(value, topk, 32)
            better, same = value > bound, value == bound
            room = topk - tl.sum(better.to(tl.int32), 0)
            zero = tl.zeros((), tl.int32)
            index, chosen, _, _ = placed(better, same, zero, zero, room)
            tl.store(out + index, place, mask=chosen)
            if LISTED:
                low = score_of(tl.min(tl.where(here, value, 0xFFFFFFFF), 0))
                tl.store(passed, 0, mask=low < tl.load(gates + row))
    elif LEAST == 0:
        for start in range(0, topk, FILL):
            place = start + tl.arange(0, FILL)
            tl.store(out + place, tl.where(place < length, place, -1), mask=place < topk)


LEAST_STEP = 32
SAMPLES = (2048, 4096, 8192)
HALVED = 2048
"""Rows that list at most half of a larger room than this are chosen from by programs of half the size."""
BLOCK = 4096
WORDS = 2048


def sample_of(width: int) -> tuple[int, int]:
    """Room of the sample of rows up to ``width`` long, and its step; few of them, few compilations."""
    step = int(triton.next_power_of_2(max(LEAST_STEP, triton.cdiv(width, SAMPLES[-1]))))
    return next(sample for sample in SAMPLES if sample * step >= width), step


def launch_gates(
    scores: Tensor, positions: Tensor, gates: Tensor, topk: int, room: int, sample: int, step: int, *, packed: bool
) -> None:
    """:func:`set_gates` of all rows."""
    set_gates[(len(gates),)](
        scores, positions, gates, scores.stride(0), topk, room, sample, step, packed, num_warps=sample // 512
    )


def launch_list(marks: Tensor, positions: Tensor, topk: int, room: int) -> tuple[Tensor, Tensor]:
    """Places that ``marks`` [R, words] name [R, room], and how many [R]: :func:`list_passing`."""
    passing = torch.empty(len(marks), room, dtype=torch.int32, device=marks.device)
    passed = torch.empty(len(marks), dtype=torch.int32, device=marks.device)
    list_passing[(len(marks),)](marks, positions, passing, passed, marks.stride(0), topk, room, WORDS, num_warps=4)
    return passing, passed


def launch_choice(
    scores: Tensor, positions: Tensor, gates: Tensor, passing: Tensor, passed: Tensor, topk: int, out: Tensor,
    room: int, *, everything: bool = False, listed: bool = False,
) -> None:  # fmt: skip
    """:func:`choose` of all rows."""
    half = room if everything or room <= HALVED else room // 2
    for least, most in ((0, half), (half + 1, room)):
        if least <= most:
            choose[(len(positions),)](
                scores, positions, gates, passing, passed, out, scores.stride(0), topk, everything, listed, room,
                least, most, 1024, num_warps=max(1, min(16, most // 512)),
            )  # fmt: skip


def choose_gated(scores: Tensor, positions: Tensor, topk: int, room: int, out: Tensor) -> Tensor:
    """Chooses from what reaches each row's gate; gives how many did."""
    rows, width = scores.shape
    sample, step = sample_of(width)
    gates = torch.empty(rows, dtype=torch.float32, device=scores.device)
    launch_gates(scores, positions, gates, topk, room, sample, step, packed=False)
    marks = torch.empty(rows, triton.cdiv(width, 128) * 4, dtype=torch.int32, device=scores.device)
    mark_passing[(rows, triton.cdiv(width, BLOCK))](
        scores, positions, gates, marks, scores.stride(0), marks.stride(0), topk, BLOCK, num_warps=4
    )
    passing, passed = launch_list(marks, positions, topk, room)
    launch_choice(scores, positions, gates, passing, passed, topk, out, room)
    return passed
