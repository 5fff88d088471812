"""Exact top-k of many e4m3 queries over long contexts on Hopper: as jit/fused.py, in four launches instead of eight."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from keyeloop.model_backend.kernels.cuda import compiled, scoring
from keyeloop.model_backend.kernels.cuda.choice import sample_of
from keyeloop.model_backend.kernels.cuda.scoring import Walk
from keyeloop.model_backend.kernels.index_keys import IndexKeys


@dataclass(frozen=True)
class Finish:
    """How a program takes a query's list: threads, programs of a processor, tiles of keys on their way, its room."""

    threads: int = 256
    programs: int = 2
    stages: int = 4
    room: int = 6144

    @property
    def shared_bytes(self) -> int:
        """Columns, tiles with their scales, places and scores."""
        return 4096 + self.threads // 128 * self.stages * (4096 + 256) + 8 * self.room


GATE_THREADS = 256
GATE_ROOM = 6144
"""Queries that see no more places have no gate."""


def bytes_per_query(width: int) -> int:
    """Memory that :func:`select` takes of each query."""
    return width // 8 + 4 * sample_of(width)[0]


def select(
    index_q: Tensor, index_weight: Tensor, index_k: IndexKeys, slot_table: Tensor, query_row: Tensor,
    query_position: Tensor, topk: int, width: int, out: Tensor, *, walk: Walk, finish: Finish | None = None,
) -> Tensor:  # fmt: skip
    """Writes ``out`` [T, topk] but for queries whose gate missed; gives how many places passed each one's gate [T].

    Missed are those with under ``topk``, or with over any room: such a number is the largest of int32.
    """
    finish, tokens, device, scales = finish or Finish(), len(index_q), index_q.device, index_k.scales
    assert scales is not None
    sample, step = sample_of(width)
    given = (index_q, index_weight, index_k, slot_table, query_row, query_position, topk)
    sampled = torch.empty(tokens, sample, dtype=torch.float32, device=device)
    scoring.score(*given, sampled, width=sample, step=step, walk=walk)
    gates = torch.empty(tokens, dtype=torch.float32, device=device)
    defined = {"THREADS": GATE_THREADS, "PROGRAMS": 3, "ROOM": GATE_ROOM, "SAMPLE": sample, "STEP": step}
    set_gates = compiled.kernel("ranking.cu choice.cu", "set_gates", device.index, tuple(defined.items()))
    set_gates((tokens, 1), GATE_THREADS, (sampled, query_position, gates, sample, topk, min(GATE_ROOM, finish.room)))
    marks = torch.empty(tokens, -(-width // 128) * 4, dtype=torch.int32, device=device)
    scoring.score(*given, marks.view(torch.int16), width=width, gates=gates, walk=walk)
    passed = torch.empty(tokens, dtype=torch.int32, device=device)
    defined = {"THREADS": finish.threads, "PROGRAMS": finish.programs, "STAGES": finish.stages, "ROOM": finish.room}
    files, macros = "hopper.cu ranking.cu finish.cu", tuple((defined | {"FENCED": 1}).items())
    finish_rows = compiled.kernel(files, "finish_rows", device.index, macros)
    finish_rows.allow_shared(finish.shared_bytes)
    finish_rows(
        (tokens, 1),
        finish.threads,
        (
            index_q.contiguous(), index_weight.contiguous(), index_k.values, scales, slot_table, query_row,
            query_position, gates, marks, passed, out, topk, slot_table.stride(0), index_k.values.stride(0),
            marks.stride(0),
        ),
        finish.shared_bytes,
    )  # fmt: skip
    return passed
