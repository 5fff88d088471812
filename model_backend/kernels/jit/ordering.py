"""Triton: numbers in the order of scores, which every step of the top-k compares, and a row's part of a program."""

from __future__ import annotations

import triton
import triton.language as tl


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
