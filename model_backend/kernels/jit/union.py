"""Triton: the places that adjacent queries chose, each once, with a mask of who chose it.

A program takes a block of queries. Every chosen place is marked in scratch memory, a count over the marks in order
gives each place its rank, and every choice then leaves its place and its query's mark at that rank. Scratch memory is
left clean for the next block. Costs little beyond reading the choices twice and one pass over the marks.

A block's queries may be of several requests: each run of one request makes a list of its own, behind the one before.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

PROGRAMS = 264
"""Programs that share the blocks; each has scratch memory for one context."""
PAD = 128
"""Lists are filled up to a multiple of this with places that nobody chose, so that they are read without bounds."""
PIECE = 8192
TILE = 2048
WARPS = 16
MARGIN = tl.constexpr(0.02)
"""How far above the share a guess may lie: some guesses are too high."""
SAMPLE = 16
"""Choices of each query that the first guess of a block's overlap rests on."""


@dataclass(frozen=True)
class Unions:
    """Lists of B blocks of ``queries`` adjacent queries."""

    slots: Tensor
    """[B, room] int32: slots of the chosen places; within a request, of ascending places."""
    masks: Tensor
    """[B, room], uint8 for up to 8 queries, else int16: bit r is set where query r of the block chose the place."""
    lengths: Tensor
    """[B] int32: entries of each list; -1 where a list would be longer than asked for."""
    queries: int


@triton.jit
def _ones(bits):
    """How many bits are set."""
    bits = bits - ((bits >> 1) & 0x55555555)
    bits = (bits & 0x33333333) + ((bits >> 2) & 0x33333333)
    bits = (bits + (bits >> 4)) & 0x0F0F0F0F
    return (bits * 0x01010101) >> 24


@triton.jit
def _distinct(positions, rows, first, tokens, chosen, steps, QUERIES: tl.constexpr, SAMPLE: tl.constexpr):
    """Distinct places as a part of all choices of a block, guessed from some of them by looking each up everywhere."""
    number = tl.arange(0, QUERIES * SAMPLE)
    token = first + number // SAMPLE
    index = ((number % SAMPLE) * 2 + 1) * chosen // (2 * SAMPLE)
    asks = token < tokens
    row = tl.load(rows + token, mask=asks, other=-1)
    place = tl.load(positions + token * chosen + index, mask=asks, other=-1)
    other = first + tl.arange(0, QUERIES)
    same = row[:, None] == tl.load(rows + other, mask=other < tokens, other=-2)[None, :]
    wanted = place[:, None]
    same &= wanted >= 0
    lists = positions + other[None, :] * chosen
    low = tl.zeros((QUERIES * SAMPLE, QUERIES), tl.int32)
    high = low + chosen
    for _ in range(steps):
        middle = (low + high) // 2
        found = tl.load(lists + middle, mask=same & (low < high), other=-1)
        below = (found >= 0) & (found < wanted)
        low = tl.where(same & (low < high) & below, middle + 1, low)
        high = tl.where(same & (low < high) & ~below, middle, high)
    hit = tl.load(lists + low, mask=same & (low < chosen), other=-1) == wanted
    holders = tl.sum((hit & same).to(tl.int32), 1)
    known = place >= 0
    share = tl.where(known, 1.0 / tl.maximum(holders, 1).to(tl.float32), 0.0)
    return tl.sum(share, 0) / tl.maximum(tl.sum(known.to(tl.int32), 0), 1).to(tl.float32)


@triton.jit(do_not_specialize=["tokens", "blocks", "chosen", "steps"], do_not_specialize_on_alignment=["rows"])
def _unite(
    positions, rows, table, seen, ranks, planes, slots, masks, lengths, share, tokens, blocks, chosen, steps,
    table_stride, seen_stride, rank_stride, room,
    QUERIES: tl.constexpr, TILE: tl.constexpr, PIECE: tl.constexpr, PAD: tl.constexpr, SAMPLE: tl.constexpr,
):  # fmt: skip
    WORDS: tl.constexpr = PIECE // 32
    program, programs = tl.program_id(0), tl.num_programs(0)
    seen += program.to(tl.int64) * seen_stride
    ranks += program.to(tl.int64) * rank_stride
    planes += program.to(tl.int64) * room * QUERIES
    lane, bit = tl.arange(0, TILE), tl.arange(0, 32).to(tl.uint32)
    flag = seen.dtype.element_ty
    kind = masks.dtype.element_ty
    for block in range(program, blocks, programs):
        first = tl.zeros((), tl.int64) + block * QUERIES
        total = tl.zeros((), tl.int32)
        guess = _distinct(positions, rows, first, tokens, chosen, steps, QUERIES, SAMPLE)
        if guess <= share + MARGIN:
            chose, out = positions + first * chosen, first // QUERIES * room
            ends = tl.minimum(first + QUERIES, tokens)
            begin = tl.zeros((), tl.int32)
            count = tl.zeros((TILE,), tl.int32)
            for number in range(QUERIES):
                row = tl.load(rows + first + number, mask=first + number < ends, other=-1)
                following = tl.load(rows + first + number + 1, mask=first + number + 1 < ends, other=-1)
                if following != row:
                    stop = (number + 1) * chosen
                    last = tl.full((TILE,), -1, tl.int32)
                    for start in range(begin * chosen, stop, TILE):
                        place = tl.load(chose + start + lane, mask=start + lane < stop, other=-1)
                        there = place >= 0
                        known = tl.load(seen + place, mask=there, other=1)
                        tl.store(seen + place, tl.full((TILE,), 1, flag), mask=known == 0)
                        count += there.to(tl.int32)
                        last = tl.maximum(last, place)
                    tl.debug_barrier()
                    before = total
                    for start in range(0, tl.max(last, 0) + 1, PIECE):
                        cells = tl.load(seen + start + tl.arange(0, PIECE))
                        used = tl.reshape(cells.to(tl.uint32), (WORDS, 32))
                        held = tl.sum(used, 1).to(tl.int32)
                        rank = total + tl.cumsum(held, 0) - held
                        total += tl.sum(held, 0)
                        packed = (rank.to(tl.int64) << 32) | tl.sum(used << bit[None, :], 1).to(tl.int64)
                        tl.store(ranks + start // 32 + tl.arange(0, WORDS), packed)
                    if total <= room:
                        for start in range(before, total, TILE):
                            for query in tl.static_range(QUERIES):
                                plane = planes + query * room + start + lane
                                tl.store(plane, tl.zeros((TILE,), flag), mask=start + lane < total)
                    tl.debug_barrier()
                    for start in range(begin * chosen, stop, TILE):
                        place = tl.load(chose + start + lane, mask=start + lane < stop, other=-1)
                        there = place >= 0
                        if total <= room:
                            cell = tl.maximum(place, 0)
                            packed = tl.load(ranks + cell // 32, mask=there, other=0)
                            below = packed.to(tl.uint32) & ((1 << (cell % 32).to(tl.uint32)) - 1)
                            index = (packed >> 32).to(tl.int32) + _ones(below).to(tl.int32)
                            tl.store(slots + out + index, place, mask=there)
                            plane = planes + (start + lane) // chosen * room + index
                            tl.store(plane, tl.full((TILE,), 1, flag), mask=there)
                        else:
                            tl.store(seen + place, tl.zeros((TILE,), flag), mask=there)
                    tl.debug_barrier()
                    if total <= room:
                        own = table + row.to(tl.int64) * table_stride
                        for start in range(before, total, TILE):
                            index = start + lane
                            inside = index < total
                            mask = tl.zeros((TILE,), tl.int32)
                            for query in tl.static_range(QUERIES):
                                held = tl.load(planes + query * room + index, mask=inside, other=0)
                                mask |= held.to(tl.int32) << query
                            place = tl.load(slots + out + index, mask=inside, other=0)
                            tl.store(slots + out + index, tl.load(own + place, mask=inside, other=0), mask=inside)
                            tl.store(masks + out + index, mask.to(kind), mask=inside)
                            tl.store(seen + place, tl.zeros((TILE,), flag), mask=inside)
                    tl.debug_barrier()
                    begin = number + 1
            fits = (total <= room) & (total <= share * tl.sum(count, 0).to(tl.float32))
            if fits & (total > 0):
                spare = tl.load(slots + out)
                index = total + tl.arange(0, PAD)
                short = index < tl.cdiv(total, PAD) * PAD
                tl.store(slots + out + index, spare + tl.zeros((PAD,), tl.int32), mask=short)
                tl.store(masks + out + index, tl.zeros((PAD,), kind), mask=short)
            tl.store(lengths + block, tl.where(fits, total, -1))
        else:
            tl.store(lengths + block, -1)


def unite(
    positions: Tensor,
    query_row: Tensor,
    slot_table: Tensor,
    queries: int,
    *,
    share: float = 1.0,
    width: int | None = None,
) -> Unions:
    """Unions of every ``queries`` (8 or 16) adjacent queries of ``positions`` [T, n], places distinct, -1 for none.

    A block whose list would hold more than ``share`` of all its choices has none (length -1). Whether that is so is
    first guessed from a sample, which takes each query's places to be ascending; another order costs speed alone.
    ``width`` bounds the places; without it, they are bounded by the table.
    """
    (tokens, chosen), device = positions.shape, positions.device
    blocks = triton.cdiv(tokens, queries)
    room = max(1, triton.cdiv(int(share * queries * chosen), PAD)) * PAD
    kind = torch.uint8 if queries <= 8 else torch.int16
    slots = torch.empty(blocks, room, dtype=torch.int32, device=device)
    masks = torch.empty(blocks, room, dtype=kind, device=device)
    lengths = torch.empty(blocks, dtype=torch.int32, device=device)
    if blocks and chosen:
        wide = slot_table.shape[1]
        cells = triton.cdiv(wide if width is None else max(1, min(wide, width)), PIECE) * PIECE
        programs = min(blocks, PROGRAMS)
        seen = torch.zeros(programs, cells, dtype=torch.uint8, device=device)
        ranks = torch.empty(programs, cells // 32, dtype=torch.int64, device=device)
        planes = torch.empty(programs, queries, room, dtype=torch.uint8, device=device)
        _unite[(programs,)](
            positions, query_row, slot_table, seen, ranks, planes, slots, masks, lengths, share, tokens, blocks,
            chosen, chosen.bit_length(), slot_table.stride(0), cells, cells // 32, room, queries,
            min(TILE, triton.next_power_of_2(queries * chosen)), PIECE, PAD, SAMPLE, num_warps=WARPS,
        )  # fmt: skip
    else:
        lengths.zero_()
    return Unions(slots, masks, lengths, queries)
