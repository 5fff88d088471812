"""Triton: what the ways to a top-k share: scores as numbers in order, a program's part of a row, where places go."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

SCATTER = tl.constexpr(2654435761)


@triton.jit
def sampled_place(number, STEP: tl.constexpr):
    """Place of a sample's member: one at random in each step; see :func:`sampled_places`."""
    place = number
    if STEP > 1:
        place = number * STEP + ((number.to(tl.uint32) * SCATTER) >> 16).to(tl.int32) % STEP
    return place


def sampled_places(length: int, step: int) -> Tensor:
    """Places that decide the gate of a row of ``length`` scores."""
    number = torch.arange(-(-length // step))
    places: Tensor = number * step + ((number * SCATTER.value % 2**32) >> 16) % step
    return places[places < length]


@triton.jit
def failed(count, topk, room):
    """Whether so many places behind a gate are too few to choose from, or more than there is room for."""
    return (count < topk) | (count > room)


@triton.jit
def comparable(scores, mask):
    """Scores with NaN as minus infinity, the lowest."""
    score = tl.load(scores, mask=mask, other=float("-inf"))
    return tl.where(score == score, score, float("-inf"))


@triton.jit
def ordered(scores, mask):
    """Unsigned numbers in the order of the scores: zeros of either sign are equal, NaN is minus infinity, none is 0."""
    score = comparable(scores, mask)
    bits = tl.where(score == 0.0, 0.0, score).to(tl.uint32, bitcast=True)
    return tl.where(bits >> 31 == 1, bits ^ 0xFFFFFFFF, bits | 0x80000000)


@triton.jit
def score_of(number):
    """The score that :func:`ordered` made ``number`` of."""
    bits = tl.where(number >> 31 == 1, number ^ 0x80000000, number ^ 0xFFFFFFFF)
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def part_of(length, split, splits, BLOCK: tl.constexpr):
    """First and last (exclusive) place of one of ``splits`` parts, each of whole blocks but the last."""
    share = tl.cdiv(tl.cdiv(length, BLOCK), splits) * BLOCK
    start = split * share
    return start, tl.minimum(start + share, length)


@triton.jit
def before(tallies, row, split, splits, SHARED: tl.constexpr, MOST: tl.constexpr):
    """Sums of ``tallies`` [R, splits, 2] over the parts of a row that stand before ``split``; 0 and 0 if not SHARED."""
    above = tl.zeros((), tl.int32)
    equal = tl.zeros((), tl.int32)
    if SHARED:
        parts = tl.arange(0, MOST)
        earlier = tallies + (row * splits + parts) * 2
        above += tl.sum(tl.load(earlier, mask=parts < split, other=0), 0)
        equal += tl.sum(tl.load(earlier + 1, mask=parts < split, other=0), 0)
    return above, equal


@triton.jit
def placed(better, same, above, equal, room):
    """Where a block's chosen places go: all that are better, and ties as long as there are fewer than ``room``.

    ``above`` and ``equal`` count what came before, and are given back with this block's.
    """
    pair = better.to(tl.int32) * 65536 + same.to(tl.int32)
    so_far = tl.cumsum(pair, 0)
    tied = equal + (so_far & 0xFFFF)
    index = above + (so_far >> 16) + tl.minimum(tied, room) - 1
    block = tl.sum(pair, 0)
    return index, better | (same & (tied <= room)), above + (block >> 16), equal + (block & 0xFFFF)
