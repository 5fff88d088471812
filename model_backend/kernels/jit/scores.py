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

from keyeloop.model_backend.kernels.cuda import compiled, scoring
from keyeloop.model_backend.kernels.cuda.scoring import Walk
from keyeloop.model_backend.kernels.index_keys import IndexKeys
from keyeloop.model_backend.kernels.jit.ordering import failed, sampled_place
from keyeloop.model_backend.kernels.jit.tile import asked, scales_of, scored

PROGRAMS = 2112
"""Programs that keep a GPU busy; work is split over keys until there are as many."""
CUDA_QUERIES = 512
"""From so many queries on the kernel in CUDA C++ scores."""


@triton.jit
def tile_of(rows, positions, first, tokens, topk, QUERIES: tl.constexpr):
    """Of a tile's queries [QUERIES]: number, request, last place (-1 for none to score); how many runs of a request."""
    own = first + tl.arange(0, QUERIES)
    inside = own < tokens
    row = tl.load(rows + own, mask=inside, other=-1)
    before = tl.load(rows + tl.maximum(own - 1, first), mask=inside, other=-1)
    position = tl.load(positions + own, mask=inside, other=-1)
    return own, row, tl.where(position < topk, -1, position), tl.sum((row != before).to(tl.int32), 0) + 1


@triton.jit
def run_from(rows, own, row, position, at, end):
    """The run that begins with query ``at``: its request, last places (-1 outside it), where the next one begins."""
    this = tl.load(rows + at)
    after = tl.min(tl.where((own > at) & (row != this), own, end), 0)
    return this, tl.where((own >= at) & (own < after), position, -1), after


@triton.jit
def slot_of(line, place, length):
    """Slots of places; of the last one for places from ``length`` on; slot 0, unread, where there are none."""
    known = tl.load(line + tl.minimum(place, length - 1), mask=place * 0 + length > 0, other=0)
    return known.to(tl.int64)


@triton.jit(do_not_specialize=["tokens", "topk", "room"], do_not_specialize_on_alignment=["rows", "positions"])
def _score(
    q, weights, keys, scales, table, rows, positions, passed, scores, tokens, table_stride, key_stride, score_stride,
    topk, room, HEADS: tl.constexpr, HEADS_WIDE: tl.constexpr, DIM: tl.constexpr, DIM_WIDE: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, SCALED: tl.constexpr, NATIVE: tl.constexpr,
    STEP: tl.constexpr, GATED: tl.constexpr,
):  # fmt: skip
    first, split, splits = tl.program_id(0) * QUERIES, tl.program_id(1), tl.num_programs(1)
    own, row, last, runs = tile_of(rows, positions, first, tokens, topk, QUERIES)
    if GATED:
        last = tl.where(failed(tl.load(passed + own, mask=last >= 0, other=topk), topk, room), last, -1)
        if tl.max(last, 0) < 0:
            return
    queries, weight = asked(
        q, weights, first, tokens, keys.dtype.element_ty, HEADS, HEADS_WIDE, DIM, DIM_WIDE, QUERIES, SCALED, NATIVE
    )
    at = first
    for _ in range(runs):
        this, position, at = run_from(rows, own, row, last, at, first + QUERIES)
        length = tl.max(position, 0) + 1
        count = tl.cdiv(length, STEP)
        share = tl.cdiv(tl.cdiv(count, KEYS), splits) * KEYS
        start = split * share
        stop = tl.minimum(start + share, count)
        line = table + this.to(tl.int64) * table_stride
        index = start + tl.arange(0, KEYS)
        scale = scales_of(scales, slot_of(line, sampled_place(index, STEP), length), SCALED, NATIVE)
        ahead = slot_of(line, sampled_place(index + KEYS, STEP), length)
        for begin in range(start, stop, KEYS):
            index = begin + tl.arange(0, KEYS)
            place = sampled_place(index, STEP)
            following = scales_of(scales, ahead, SCALED, NATIVE)
            ahead = slot_of(line, sampled_place(index + 2 * KEYS, STEP), length)
            slot = slot_of(line, place, length)
            total = scored(
                queries, weight, keys, scale, slot, key_stride, HEADS_WIDE, DIM, DIM_WIDE, QUERIES, KEYS, SCALED,
                NATIVE,
            )  # fmt: skip
            tl.store(
                scores + own[None, :].to(tl.int64) * score_stride + index[:, None], total,
                mask=place[:, None] <= position[None, :],
            )  # fmt: skip
            scale = following


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
        """Of 16 queries with 64 keys few threads hold all heads; five stages keep two tiles of keys on their way."""
        wide = self.tensors[2].dtype == torch.float32
        if one_each:
            return Tile(1, 32 if wide else 128, 4, 2 if wide else 3)
        queries = max(4, min(16, 256 // self.shape[1]))
        return Tile(queries, 32 if wide else 64, 4, 2 if wide else 5)


def scores(
    index_q: Tensor, index_weight: Tensor, index_k: IndexKeys, slot_table: Tensor, query_row: Tensor,
    query_position: Tensor, topk: int, out: Tensor, *, one_each: bool, step: int = 1, passed: Tensor | None = None,
    room: int = 0, tile: Tile | Walk | None = None,
) -> None:  # fmt: skip
    """Writes ``out`` [T, width] float32 at the places that each query sees, if these are more than ``topk``.

    ``one_each`` says that adjacent queries are mostly of different requests, as in decoding. With ``step`` over 1 only
    one place in each such step is scored and written under its number. With ``passed`` only queries are done where that
    is under ``topk`` or over ``room``. Many queries go to the kernel in CUDA C++ where it fits and is wanted; a
    ``tile`` of Triton's, or a walk of the other's, may be asked for.
    """
    if tile is None and compiled.wanted() and not one_each and passed is None and len(index_q) >= CUDA_QUERIES:
        tile = Walk() if scoring.fits(index_q, index_weight, index_k, slot_table, topk) else None
    if isinstance(tile, Walk):
        given = (index_q, index_weight, index_k, slot_table, query_row, query_position, topk, out)
        scoring.score(*given, width=out.shape[1], step=step, walk=tile)
        return
    known = Scoring.of(index_q, index_weight, index_k, 16 if one_each else 2)
    tile, tokens = tile or known.tile(one_each), len(index_q)
    tiles = triton.cdiv(tokens, tile.queries)
    splits = max(1, min(triton.cdiv(out.shape[1], tile.keys), triton.cdiv(PROGRAMS, tiles)))
    _score[(tiles, splits)](
        *known.tensors, slot_table, query_row, query_position, query_row if passed is None else passed, out, tokens,
        slot_table.stride(0), known.tensors[2].stride(0), out.stride(0), topk, room, *known.shape, tile.queries,
        tile.keys, known.scaled, known.native, step, passed is not None, num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
