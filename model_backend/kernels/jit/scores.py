"""Triton: index scores of many queries against the paged keys of their own requests, in float32.

A tile of adjacent queries may hold several requests; it then goes through its keys once for each. Lengths are read on
the device. The same kernel scores a sample of the keys: one place at random in each of equal steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from keyeloop.model_backend.kernels.index_keys import IndexKeys
from keyeloop.model_backend.kernels.jit.ordering import failed, sampled_place
from keyeloop.model_backend.kernels.jit.tile import asked, scored

PROGRAMS = 4096
"""Programs that keep a GPU busy; work is split over keys until there are as many."""


@triton.jit
def seen(rows, positions, first, number, tokens, topk, OWN: tl.constexpr):
    """The request of query ``number`` of a tile, and what its queries see there: [OWN] last places, -1 of others.

    All see nothing where the query before is of the same request, whose turn has been.
    """
    own = first + tl.arange(0, OWN)
    row = tl.load(rows + own, mask=own < tokens, other=-1)
    position = tl.load(positions + own, mask=own < tokens, other=-1)
    at = tl.minimum(first + number, tokens - 1)
    this = tl.load(rows + at)
    done = (number > 0) & (this == tl.load(rows + tl.maximum(at - 1, 0)))
    return this, tl.where((row != this) | (position < topk) | done, -1, position)


@triton.jit(do_not_specialize=["tokens", "topk", "room"], do_not_specialize_on_alignment=["rows", "positions"])
def _score(
    q, weights, keys, scales, table, rows, positions, passed, scores, tokens, table_stride, key_stride, score_stride,
    topk, room, HEADS: tl.constexpr, HEADS_WIDE: tl.constexpr, DIM: tl.constexpr, DIM_WIDE: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, SCALED: tl.constexpr, NATIVE: tl.constexpr,
    STEP: tl.constexpr, GATED: tl.constexpr,
):  # fmt: skip
    first, split, splits = tl.program_id(0) * QUERIES, tl.program_id(1), tl.num_programs(1)
    own = first + tl.arange(0, QUERIES)
    missed = own < tokens
    if GATED:
        missed = missed & failed(tl.load(passed + own, mask=missed, other=topk), topk, room)
        if tl.sum((missed & (tl.load(positions + own, mask=missed, other=-1) >= topk)).to(tl.int32), 0) == 0:
            return
    queries, weight = asked(
        q, weights, first, tokens, keys.dtype.element_ty, HEADS, HEADS_WIDE, DIM, DIM_WIDE, QUERIES, SCALED, NATIVE
    )
    for number in range(QUERIES):
        this, position = seen(rows, positions, first, number, tokens, topk, QUERIES)
        if GATED:
            position = tl.where(missed, position, -1)
        length = tl.max(position, 0) + 1
        count = tl.cdiv(length, STEP)
        share = tl.cdiv(tl.cdiv(count, KEYS), splits) * KEYS
        start = split * share
        stop = tl.minimum(start + share, count)
        line = table + this.to(tl.int64) * table_stride
        for begin in range(start, stop, KEYS):
            index = begin + tl.arange(0, KEYS)
            place = sampled_place(index, STEP)
            slot = tl.load(line + tl.minimum(place, length - 1)).to(tl.int64)
            total = scored(
                queries, weight, keys, scales, slot, key_stride, HEADS_WIDE, DIM, DIM_WIDE, QUERIES, KEYS, SCALED,
                NATIVE,
            )  # fmt: skip
            tl.store(
                scores + own[None, :].to(tl.int64) * score_stride + index[:, None], total,
                mask=place[:, None] <= position[None, :],
            )  # fmt: skip


@dataclass(frozen=True)
class Tile:
    """How a kernel's work is cut: queries and keys at once, threads, and loads that are under way."""

    queries: int
    keys: int
    warps: int
    stages: int


@dataclass(frozen=True)
class Scoring:
    """What every kernel that scores is given of a call, in the order of its arguments."""

    tensors: tuple[Tensor, ...]
    shape: tuple[int, int, int, int]
    scaled: bool
    native: bool

    @classmethod
    def of(cls, index_q: Tensor, index_weight: Tensor, index_k: IndexKeys, wide: int = 2) -> Scoring:
        """``wide`` is the least number of columns of a query."""
        heads, dim = index_q.shape[1:]
        values, scales = index_k.values, index_k.scales
        native = scales is not None and values.is_cuda and torch.cuda.get_device_capability(values.device) >= (8, 9)
        if scales is not None and not native:
            index_q, values = index_q.view(torch.uint8), values.view(torch.uint8)
        tensors = (index_q.contiguous(), index_weight.contiguous(), values, index_weight if scales is None else scales)
        shape = (heads, max(wide, triton.next_power_of_2(heads)), dim, max(32, triton.next_power_of_2(dim)))
        return cls(tensors, shape, scales is not None, native)

    def tile(self, one_each: bool) -> Tile:
        """What was fastest on an H200."""
        wide = self.tensors[2].dtype == torch.float32
        if one_each:
            return Tile(1, 32 if wide else 128, 4, 2 if wide else 3)
        queries = max(4, min(16, 256 // self.shape[1]))
        return Tile(queries, 32 if wide else 64, 4, 2 if wide else 3)


def scores(
    index_q: Tensor, index_weight: Tensor, index_k: IndexKeys, slot_table: Tensor, query_row: Tensor,
    query_position: Tensor, topk: int, out: Tensor, *, one_each: bool, step: int = 1, passed: Tensor | None = None,
    room: int = 0, tile: Tile | None = None,
) -> None:  # fmt: skip
    """Writes ``out`` [T, width] float32 at the places that each query sees, if these are more than ``topk``.

    ``one_each`` says that adjacent queries are mostly of different requests, as in decoding. With ``step`` over 1 only
    one place in each such step is scored and written under its number. With ``passed`` only queries are done where that
    is under ``topk`` or over ``room``.
    """
    given = Scoring.of(index_q, index_weight, index_k, 16 if one_each else 2)
    tile, tokens = tile or given.tile(one_each), len(index_q)
    tiles = triton.cdiv(tokens, tile.queries)
    splits = max(1, min(triton.cdiv(out.shape[1], tile.keys), triton.cdiv(PROGRAMS, tiles)))
    _score[(tiles, splits)](
        *given.tensors, slot_table, query_row, query_position, query_row if passed is None else passed, out, tokens,
        slot_table.stride(0), given.tensors[2].stride(0), out.stride(0), topk, room, *given.shape, tile.queries,
        tile.keys, given.scaled, given.native, step, passed is not None, num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
