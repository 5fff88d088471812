"""Exact top-k of many long rows on Hopper: :mod:`choice.cu`, one launch that reads every row once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from keyeloop.model_backend.kernels.cuda import compiled


@dataclass(frozen=True)
class Row:
    """How a program takes its row: threads, programs of a processor, places that may pass."""

    threads: int = 512
    programs: int = 2
    room: int = 6144


LARGEST_WORDS = 16384
"""Words of one bit a place that fit shared memory beside the list."""
LEAST_STEP, SAMPLES = 32, (2048, 4096, 8192)


def sample_of(width: int) -> tuple[int, int]:
    """Room of the sample of rows up to ``width`` long, and its step; few of them, few compilations."""
    step = LEAST_STEP
    while SAMPLES[-1] * step < width:
        step *= 2
    return next(sample for sample in SAMPLES if sample * step >= width), step


def fits(scores: Tensor, topk: int, row: Row) -> bool:
    """Whether the kernel takes such rows, on this GPU."""
    return (
        scores.is_cuda
        and 2 * topk <= row.room
        and scores.stride(0) % 4 == 0
        and scores.data_ptr() % 16 == 0
        and scores.shape[1] <= 32 * LARGEST_WORDS
        and compiled.available(scores.device.index)
    )


def choose_rows(scores: Tensor, positions: Tensor, topk: int, out: Tensor, row: Row) -> Tensor:
    """Writes ``out`` [R, topk] int32 but for rows whose gate missed; gives how many passed each row's gate [R].

    Missed are rows of more than ``topk`` places of which fewer than that or more than ``row.room`` passed.
    """
    rows, width = scores.shape
    passed = torch.empty(rows, dtype=torch.int32, device=scores.device)
    words, (sample, step) = -(-width // 32), sample_of(width)
    defined = {"THREADS": row.threads, "PROGRAMS": row.programs, "ROOM": row.room, "SAMPLE": sample, "STEP": step}
    kernel = compiled.kernel("ranking.cu choice.cu", "choose_rows", scores.device.index, tuple(defined.items()))
    shared_bytes = 8 * row.room + 4 * words
    kernel.allow_shared(shared_bytes)
    kernel(
        (rows, 1), row.threads, (scores, positions, passed, out, scores.stride(0), topk, words), shared_bytes
    )  # fmt: skip
    return passed
