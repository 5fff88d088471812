"""Triton: the places that adjacent queries chose, each once, with a mask of who chose it.

A program takes a block of queries. Every choice sets its query's bit at its place in scratch memory; then one pass over
the places in order lists those with a bit and leaves scratch memory clean for the next block. Bits are set by atomic
operations whose order does not matter. A sample of the choices guesses before which blocks are not worth it.

A block's queries may be of several requests: each run of one request makes a list of its own, behind the one before.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

PAD = 128
"""Lists are filled up to a multiple of this with places that nobody chose, so that they are read without bounds."""
MARGIN = 0.03
"""How far above the share a guess may lie, and twice as far a list: what was built is seldom thrown away."""
SAMPLE = 16
"""Choices of each query that the first guess of a block's overlap rests on, others for each."""


@dataclass(frozen=True)
class Work:
    """How building is cut; changes speed alone."""

    programs: int
    """Share the blocks; each has scratch memory for one context."""
    choices: int
    """Marked at once."""
    words: int
    """Of marks, looked through at once."""
    warps: int
    registers: int
    """A thread's, at most: fewer let more programs run on a processor."""


WORK = Work(264, 2048, 2048, 16, 64)


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
def _distinct(positions, rows, first, tokens, chosen, steps, QUERIES: tl.constexpr, SAMPLE: tl.constexpr):
    """Distinct places as a part of all choices of a block, guessed from some of them by looking each up everywhere."""
    number = tl.arange(0, QUERIES * SAMPLE)
    token = first + number // SAMPLE
    index = ((number % SAMPLE * QUERIES + number // SAMPLE) * 2 + 1) * chosen // (2 * SAMPLE * QUERIES)
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


@triton.jit(do_not_specialize=["tokens", "chosen", "steps"], do_not_specialize_on_alignment=["rows"])
def _guess(
    positions, rows, lengths, most, tokens, chosen, steps, QUERIES: tl.constexpr, SAMPLE: tl.constexpr
):  # fmt: skip
    """Length 0 of a block whose list seems worth building, else -1."""
    block = tl.program_id(0)
    first = tl.zeros((), tl.int64) + block * QUERIES
    guess = _distinct(positions, rows, first, tokens, chosen, steps, QUERIES, SAMPLE)
    tl.store(lengths + block, tl.where(guess <= most, 0, -1))


@triton.jit(  # memory taken to be unaligned is read by neighbouring threads in turn, as what is scattered is written
    do_not_specialize=["tokens", "blocks", "chosen", "places"],
    do_not_specialize_on_alignment=["positions", "rows", "words", "listed"],
)
def _unite(
    positions, rows, table, words, listed, slots, masks, lengths, most, tokens, blocks, chosen,
    table_stride, word_stride, listed_stride, room, places,
    QUERIES: tl.constexpr, BITS: tl.constexpr, TILE: tl.constexpr, PIECE: tl.constexpr, PAD: tl.constexpr,
):  # fmt: skip
    SHARED: tl.constexpr = 32 // BITS
    FIELD: tl.constexpr = (1 << BITS) - 1
    program, programs = tl.program_id(0), tl.num_programs(0)
    words += program.to(tl.int64) * word_stride
    listed += program.to(tl.int64) * listed_stride
    lane, near = tl.arange(0, TILE), tl.arange(0, PIECE)
    kind = masks.dtype.element_ty
    for block in range(program, blocks, programs):
        if tl.load(lengths + block) >= 0:
            first = tl.zeros((), tl.int64) + block * QUERIES
            chose, out = positions + first * chosen, first // QUERIES * room
            ends = tl.minimum(first + QUERIES, tokens)
            begin, total = tl.zeros((), tl.int32), tl.zeros((), tl.int32)
            count = tl.zeros((TILE,), tl.int32)
            for number in range(QUERIES):
                row = tl.load(rows + first + number, mask=first + number < ends, other=-1)
                following = tl.load(rows + first + number + 1, mask=first + number + 1 < ends, other=-1)
                if following != row:
                    stop = (number + 1) * chosen
                    last = tl.full((TILE,), -1, tl.int32)
                    for start in range(begin * chosen, stop, TILE):
                        index = start + lane
                        place = tl.load(chose + index, mask=index < stop, other=-1)
                        there = (place >= 0) & (place < places)
                        bit = (tl.maximum(place, 0) % SHARED) * BITS + index // chosen
                        tl.atomic_or(words + place // SHARED, 1 << bit, mask=there, sem="relaxed")
                        count += there.to(tl.int32)
                        last = tl.maximum(last, tl.where(there, place, -1))
                    tl.debug_barrier()
                    before = total
                    limit = tl.max(last, 0) // SHARED + 1
                    ahead = tl.load(words + near, cache_modifier=".cg")
                    for start in range(0, limit, PIECE):
                        word = ahead
                        more = start + PIECE + near < limit
                        ahead = tl.load(words + start + PIECE + near, mask=more, other=0, cache_modifier=".cg")
                        tl.store(words + start + near, tl.zeros((PIECE,), tl.int32))
                        held = tl.zeros((PIECE,), tl.int32)
                        for field in tl.static_range(SHARED):
                            held += ((word >> (field * BITS)) & FIELD != 0).to(tl.int32)
                        rank = total + tl.cumsum(held, 0) - held
                        total += tl.sum(held, 0)
                        for field in tl.static_range(SHARED):
                            mark = (word >> (field * BITS)) & FIELD
                            place = (start + near) * SHARED + field
                            packed = (place.to(listed.dtype.element_ty) << BITS) | mark
                            tl.store(listed + rank, packed, mask=(mark != 0) & (rank < room))
                            rank += (mark != 0).to(tl.int32)
                    tl.debug_barrier()
                    if total <= room:
                        own = table + row.to(tl.int64) * table_stride
                        for start in range(before, total, TILE):
                            index = start + lane
                            inside = index < total
                            packed = tl.load(listed + index, mask=inside, other=0)
                            slot = tl.load(own + (packed >> BITS), mask=inside, other=0)
                            tl.store(slots + out + index, slot, mask=inside)
                            tl.store(masks + out + index, (packed & FIELD).to(kind), mask=inside)
                    tl.debug_barrier()
                    begin = number + 1
            fits = (total <= room) & (total <= most * tl.sum(count, 0).to(tl.float32))
            if fits & (total > 0):
                spare = tl.load(slots + out)
                index = total + tl.arange(0, PAD)
                short = index < tl.cdiv(total, PAD) * PAD
                tl.store(slots + out + index, spare + tl.zeros((PAD,), tl.int32), mask=short)
                tl.store(masks + out + index, tl.zeros((PAD,), kind), mask=short)
            tl.store(lengths + block, tl.where(fits, total, -1))


def unite(
    positions: Tensor,
    query_row: Tensor,
    slot_table: Tensor,
    queries: int,
    *,
    share: float = 1.0,
    width: int | None = None,
    work: Work = WORK,
) -> Unions:
    """Unions of every ``queries`` (8 or 16) adjacent queries of ``positions`` [T, n], places distinct, -1 for none.

    A block whose list would hold more than ``share`` of all its choices, by a sample's guess that may be off by a few
    hundredths, has none (length -1). The sample takes each query's places to be ascending; another order costs speed
    alone. ``width`` bounds the places, below 2**23; without it, the table does. What lies beyond is left out.
    """
    (tokens, chosen), device = positions.shape, positions.device
    blocks, most = triton.cdiv(tokens, queries), min(1.0, share + 2 * MARGIN) if share > 0.0 else 0.0
    room = max(1, triton.cdiv(int(most * queries * chosen), PAD)) * PAD
    kind, bits = (torch.uint8, 8) if queries <= 8 else (torch.int16, 16)
    slots = torch.empty(blocks, room, dtype=torch.int32, device=device)
    masks = torch.empty(blocks, room, dtype=kind, device=device)
    lengths = torch.zeros(blocks, dtype=torch.int32, device=device)
    if blocks and chosen:
        if share < 1.0:
            _guess[(blocks,)](
                positions, query_row, lengths, min(share + MARGIN, most), tokens, chosen, chosen.bit_length(),
                queries, SAMPLE, num_warps=4,
            )  # fmt: skip
        wide = slot_table.shape[1]
        places = wide if width is None else max(1, min(wide, width))
        words = triton.cdiv(places * bits, 32 * work.words) * work.words
        programs = min(blocks, work.programs)
        marks = torch.zeros(programs, words, dtype=torch.int32, device=device)
        listed = torch.empty(programs, room, dtype=torch.int32 if bits == 8 else torch.int64, device=device)
        _unite[(programs,)](
            positions, query_row, slot_table, marks, listed, slots, masks, lengths, most, tokens,
            blocks, chosen, slot_table.stride(0), words, room, room, places, queries, bits,
            min(work.choices, triton.next_power_of_2(queries * chosen)), work.words, PAD,
            num_warps=work.warps, maxnreg=work.registers,
        )  # fmt: skip
    return Unions(slots, masks, lengths, queries)
