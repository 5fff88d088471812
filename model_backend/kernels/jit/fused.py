"""Triton: exact top-k of many queries over long contexts; their scores never reach memory.

A sample of the keys is scored first and sets each query's gate. The scoring of all keys then leaves one bit a place:
whether its score passes. What passed is listed in order, scored again with the same bits, and the best are chosen. Of
262,144 places some 3,600 pass a gate for 2,048. Queries whose gate missed are left to scoring and radix selection.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from keyeloop.model_backend.kernels.index_keys import IndexKeys
from keyeloop.model_backend.kernels.jit import gate
from keyeloop.model_backend.kernels.jit.ordering import failed
from keyeloop.model_backend.kernels.jit.scores import Scoring, Tile, run_from, scores, slot_of, tile_of
from keyeloop.model_backend.kernels.jit.tile import asked, scales_of, scored

PROGRAMS = 2112
LIST_PARTS = 4
"""Programs that score what one query has listed."""


@triton.jit(do_not_specialize=["tokens", "topk"], do_not_specialize_on_alignment=["rows", "positions"])
def _mark(
    q, weights, keys, scales, table, rows, positions, gates, marks, tokens, table_stride, key_stride, mark_stride, topk,
    HEADS: tl.constexpr, HEADS_WIDE: tl.constexpr, DIM: tl.constexpr, DIM_WIDE: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, SCALED: tl.constexpr, NATIVE: tl.constexpr,
):  # fmt: skip
    """One bit a place, 16 to a word of ``marks`` [T, words]: whether its score is not below the query's gate."""
    first, split, splits = tl.program_id(0) * QUERIES, tl.program_id(1), tl.num_programs(1)
    queries, weight = asked(
        q, weights, first, tokens, keys.dtype.element_ty, HEADS, HEADS_WIDE, DIM, DIM_WIDE, QUERIES, SCALED, NATIVE
    )
    own, row, last, runs = tile_of(rows, positions, first, tokens, topk, QUERIES)
    least = tl.load(gates + own, mask=own < tokens, other=0.0)
    bit = 1 << (tl.arange(0, KEYS) % 16)
    at = first
    for _ in range(runs):
        this, position, at = run_from(rows, own, row, last, at, first + QUERIES)
        length = tl.max(position, 0) + 1
        share = tl.cdiv(tl.cdiv(length, KEYS), splits) * KEYS
        start = split * share
        stop = tl.minimum(start + share, length)
        line = table + this.to(tl.int64) * table_stride
        place = start + tl.arange(0, KEYS)
        scale = scales_of(scales, slot_of(line, place, length), SCALED, NATIVE)
        ahead = slot_of(line, place + KEYS, length)
        for begin in range(start, stop, KEYS):
            place = begin + tl.arange(0, KEYS)
            following = scales_of(scales, ahead, SCALED, NATIVE)
            ahead = slot_of(line, place + 2 * KEYS, length)
            slot = slot_of(line, place, length)
            total = scored(
                queries, weight, keys, scale, slot, key_stride, HEADS_WIDE, DIM, DIM_WIDE, QUERIES, KEYS, SCALED,
                NATIVE,
            )  # fmt: skip
            passes = ((total < least[None, :]) == 0) & (place[:, None] <= position[None, :])
            word = tl.sum(tl.reshape(tl.where(passes, bit[:, None], 0), (KEYS // 16, 16, QUERIES)), 1)
            index = begin // 16 + tl.arange(0, KEYS // 16)
            tl.store(
                marks + own[None, :].to(tl.int64) * mark_stride + index[:, None], word.to(tl.int16),
                mask=position[None, :] >= 0,
            )  # fmt: skip
            scale = following


@triton.jit(do_not_specialize=["tokens", "topk"], do_not_specialize_on_alignment=["rows", "positions"])
def _score_listed(
    q, weights, keys, scales, table, rows, positions, passing, passed, found, tokens, table_stride, key_stride, topk,
    HEADS: tl.constexpr, HEADS_WIDE: tl.constexpr, DIM: tl.constexpr, DIM_WIDE: tl.constexpr,
    ROOM: tl.constexpr, KEYS: tl.constexpr, SCALED: tl.constexpr, NATIVE: tl.constexpr,
):  # fmt: skip
    """Scores of the places that each query lists, by their number there."""
    token, split, splits = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    length = tl.load(positions + token) + 1
    if length > topk:
        count = tl.load(passed + token)
        if failed(count, topk, ROOM) == 0:
            queries, weight = asked(
                q, weights, token, tokens, keys.dtype.element_ty, HEADS, HEADS_WIDE, DIM, DIM_WIDE, 1, SCALED, NATIVE
            )
            line = table + tl.load(rows + token).to(tl.int64) * table_stride
            passing += token.to(tl.int64) * ROOM
            found += token.to(tl.int64) * ROOM
            share = tl.cdiv(tl.cdiv(count, KEYS), splits) * KEYS
            start = split * share
            stop = tl.minimum(start + share, count)
            for begin in range(start, stop, KEYS):
                number = begin + tl.arange(0, KEYS)
                place = tl.load(passing + tl.minimum(number, count - 1))
                slot = tl.load(line + place).to(tl.int64)
                scale = scales_of(scales, slot, SCALED, NATIVE)
                total = scored(
                    queries, weight, keys, scale, slot, key_stride, HEADS_WIDE, DIM, DIM_WIDE, 1, KEYS, SCALED, NATIVE
                )
                tl.store(found + number, tl.reshape(total, (KEYS,)), mask=number < stop)


def bytes_per_query(width: int, room: int) -> int:
    """Memory that :func:`select` takes of each query."""
    return width // 8 + 4 * (gate.sample_of(width)[0] + 2 * room)


def select(
    index_q: Tensor, index_weight: Tensor, index_k: IndexKeys, slot_table: Tensor, query_row: Tensor,
    query_position: Tensor, topk: int, room: int, width: int, out: Tensor, *, tile: Tile | None = None,
) -> Tensor:  # fmt: skip
    """Writes ``out`` [T, topk] as :func:`keyeloop.model_backend.kernels.ops.select` does, but for missed gates.

    Gives how many places passed each query's gate [T]: under ``topk`` or over ``room``, its row is left alone. Of
    queries with at most ``topk`` places it says nothing; their rows are written. ``width`` bounds the places.
    """
    tokens, device = len(index_q), out.device
    sample, step = gate.sample_of(width)
    place = (slot_table, query_row, query_position)
    sampled = torch.empty(tokens, sample, dtype=torch.float32, device=device)
    scores(index_q, index_weight, index_k, *place, topk, sampled, one_each=False, step=step, tile=tile)
    gates = torch.empty(tokens, dtype=torch.float32, device=device)
    gate.launch_gates(sampled, query_position, gates, topk, room, sample, step, packed=True)
    words = triton.cdiv(width, 128) * 4
    marks = torch.empty(tokens, words, dtype=torch.int32, device=device)
    given = Scoring.of(index_q, index_weight, index_k)
    how, stride = tile or given.tile(one_each=False), given.tensors[2].stride(0)
    tiles = triton.cdiv(tokens, how.queries)
    splits = max(1, min(triton.cdiv(width, how.keys), triton.cdiv(PROGRAMS, tiles)))
    _mark[(tiles, splits)](
        *given.tensors, *place, gates, marks.view(torch.int16), tokens, slot_table.stride(0), stride, 2 * words, topk,
        *given.shape, how.queries, how.keys, given.scaled, given.native, num_warps=how.warps, num_stages=how.stages,
    )  # fmt: skip
    passing, passed = gate.launch_list(marks, query_position, topk, room)
    found = torch.empty(tokens, room, dtype=torch.float32, device=device)
    given = Scoring.of(index_q, index_weight, index_k, 16)
    how = given.tile(one_each=True)
    _score_listed[(tokens, LIST_PARTS)](
        *given.tensors, *place, passing, passed, found, tokens, slot_table.stride(0), stride, topk, *given.shape, room,
        how.keys, given.scaled, given.native, num_warps=how.warps, num_stages=how.stages,
    )  # fmt: skip
    gate.launch_choice(found, query_position, gates, passing, passed, topk, out, room, listed=True)
    return passed
