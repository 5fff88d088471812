"""Index scores of many e4m3 queries on Hopper: :mod:`scoring.cu`, twice as much at once as Triton's kernel keeps going.

Sixteen heads of 64 dimensions only, the 30B model's; all else is Triton's. The bits are the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from keyeloop.model_backend.kernels.cuda import compiled
from keyeloop.model_backend.kernels.index_keys import FP8, IndexKeys

QUERIES, KEYS, THREADS = 16, 64, 128
LARGEST_ROOM = 6144
PROGRAMS = 2112
"""Programs among which keys are split, at the least."""


@dataclass(frozen=True)
class Walk:
    """How a program goes over keys: tiles a step, tiles in shared memory, a fence between copies and products.

    Of ``less`` heads the positive part is a comparison, of the others a sum.
    """

    tiles: int = 2
    stages: int = 4
    fenced: bool = True
    less: int = 0


def fits(index_q: Tensor, index_weight: Tensor, index_k: IndexKeys, slot_table: Tensor, topk: int) -> bool:
    """Whether the kernel takes these sizes on this GPU, and :mod:`selection` so many places."""
    return (
        index_k.scales is not None
        and index_q.is_cuda
        and index_q.dtype == FP8
        and tuple(index_q.shape[1:]) == (16, 64)
        and index_weight.dtype == torch.float32
        and 2 * topk <= LARGEST_ROOM
        and index_k.values.stride(0) % 16 == 0
        and slot_table.shape[1] < 1 << 30
        and compiled.available(index_q.device.index)
    )


def score(
    index_q: Tensor, index_weight: Tensor, index_k: IndexKeys, slot_table: Tensor, query_row: Tensor,
    query_position: Tensor, topk: int, out: Tensor, *, width: int, step: int = 1, gates: Tensor | None = None,
    walk: Walk | None = None,
) -> None:  # fmt: skip
    """Writes to ``out`` [T, width] float32 the scores of queries that see more than ``topk`` places, as Triton's does.

    With ``gates`` [T] ``out`` [T, words] int16 gets one bit a place, 16 a word: whether its score is not below the
    gate. With ``step`` over 1 one place in each step is scored and written under its number, up to ``width`` of them.
    """
    walk, tokens, scales = walk or Walk(), len(index_q), index_k.scales
    assert scales is not None
    tiles = -(-tokens // QUERIES)
    splits = max(1, min(-(-width // (KEYS * walk.stages)), -(-PROGRAMS // tiles)))
    defined = {"STEP": step, "MARK": int(gates is not None), "TILES": walk.tiles, "STAGES": walk.stages}
    defined |= {"FENCED": int(walk.fenced), "LESS": walk.less}
    kernel = compiled.kernel("hopper.cu scoring.cu", "score_keys", index_q.device.index, tuple(defined.items()))
    kernel(
        (tiles, splits),
        THREADS,
        (
            index_q.contiguous(), index_weight.contiguous(), index_k.values, scales, slot_table, query_row,
            query_position, scales if gates is None else gates, out, tokens, topk, slot_table.stride(0),
            index_k.values.stride(0), out.stride(0),
        ),
    )  # fmt: skip
