"""Exact top-k of rows of float32 scores on Triton: ties to the lowest place, places ascending.

Four ways to the same result. Many long rows go to one launch in CUDA C++ on a Hopper GPU. Elsewhere a row that fits one
program's registers is chosen from there, and of many longer rows one pass gathers what reaches a gate
(:mod:`~keyeloop.model_backend.kernels.jit.gate`). Few long rows, rows whose gate missed and a very large k go to the
radix selection (:mod:`~keyeloop.model_backend.kernels.jit.radix`).
"""

from __future__ import annotations

from typing import Literal

import torch
import triton
from torch import Tensor

from keyeloop.model_backend.kernels.cuda import choice, compiled
from keyeloop.model_backend.kernels.jit import gate, radix

PROGRAMS = 264
BLOCK = 2048
CUDA_ROWS = 512
"""From so many rows on, a program each keeps a Hopper GPU busy."""
GATED_ROWS = 48
"""Fewer long rows than these go to the radix selection, whose programs share a row in every pass."""
LARGEST_ROOM = 8192
"""Places that a program can hold."""
MOST_SPLITS = 64
"""Programs that share a row, at most. Each constant here is compiled into kernels: few of them, few compilations."""


def room_for(topk: int) -> int:
    """Places that may pass a gate."""
    return int(max(1024, triton.next_power_of_2(4 * topk)))


def gated(topk: int) -> bool:
    """Whether there is room for what passes a gate for so many."""
    return room_for(topk) <= LARGEST_ROOM


def top_positions(
    scores: Tensor, positions: Tensor, topk: int, out: Tensor, way: choice.Row | Literal["auto", "triton"] = "auto"
) -> None:
    """Writes to ``out`` [R, topk] int32 the best of each row's scores [R, S] at places 0 to ``positions`` [R].

    Many rows go to the kernel in CUDA C++ where it fits and is wanted; a ``way`` of its own, or Triton, may be asked
    for.
    """
    rows, width = scores.shape
    room = room_for(topk)
    if way == "auto" and compiled.wanted() and rows >= CUDA_ROWS and width > room:
        way = choice.Row()
    if isinstance(way, choice.Row) and choice.fits(scores, topk, way):
        select(scores, positions, choice.choose_rows(scores, positions, topk, out, way), topk, way.room, out)
        return
    if width <= min(room, LARGEST_ROOM):
        gate.launch_choice(scores, positions, scores, out, out, topk, out, room, everything=True)
    elif rows < GATED_ROWS or not gated(topk):
        select(scores, positions, None, topk, 0, out)
    else:
        passed = gate.choose_gated(scores, positions, topk, room, out)
        select(scores, positions, passed, topk, room, out)


def _splits(rows: int, width: int) -> int:
    return int(triton.next_power_of_2(max(1, min(PROGRAMS // rows, triton.cdiv(width, BLOCK), MOST_SPLITS))))


def select(scores: Tensor, positions: Tensor, passed: Tensor | None, topk: int, room: int, out: Tensor) -> None:
    """Radix selection of every row, or of those where fewer than ``topk`` or more than ``room`` passed."""
    (rows, width), stride = scores.shape, scores.stride(0)
    if passed is not None:
        radix.select_missed[(rows,)](scores, positions, passed, out, stride, topk, room, BLOCK, num_warps=8)
        return
    splits = _splits(rows, width)
    counts = torch.zeros(rows, 4, 256, dtype=torch.int32, device=scores.device)
    tallies = torch.empty(rows, splits, 2, dtype=torch.int32, device=scores.device) if splits > 1 else counts
    for number in range(4):
        radix.count_digits[(rows, splits)](scores, positions, counts, stride, topk, number, BLOCK, num_warps=8)
    if splits > 1:
        radix.tally[(rows, splits)](scores, positions, counts, tallies, stride, topk, BLOCK, num_warps=8)
    radix.write_chosen[(rows, splits)](
        scores, positions, counts, tallies, out, stride, topk, splits > 1, MOST_SPLITS, BLOCK, num_warps=8
    )
