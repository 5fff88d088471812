"""Exact top-k of rows of float32 scores on Triton: ties to the lowest place, places ascending.

Three ways to the same result. A row that fits one program's registers is chosen from there. Of many longer rows one
pass gathers what reaches a gate (:mod:`~keyeloop.model_backend.kernels.jit.gate`). Few long rows, rows whose gate
missed and a very large k go to the radix selection (:mod:`~keyeloop.model_backend.kernels.jit.radix`).
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from keyeloop.model_backend.kernels.jit import gate, radix

PROGRAMS = 264
BLOCK = 2048
GATED_ROWS = 48
"""Fewer long rows than these go to the radix selection, whose programs share a row in every pass."""
LARGEST_ROOM = 8192
"""Places that a program can hold."""
MOST_SPLITS = 64
"""Programs that share a row, at most. Each constant here is compiled into kernels: few of them, few compilations."""


def top_positions(scores: Tensor, positions: Tensor, topk: int, out: Tensor) -> None:
    """Writes to ``out`` [R, topk] int32 the best of each row's scores [R, S] at places 0 to ``positions`` [R]."""
    rows, width = scores.shape
    room = max(1024, triton.next_power_of_2(4 * topk))
    if width <= min(room, LARGEST_ROOM):
        _choose(scores, positions, out, out, topk, out, room, everything=True)
    elif rows < GATED_ROWS or room > LARGEST_ROOM:
        _select(scores, positions, None, topk, 0, out)
    else:
        passed = _choose_gated(scores, positions, topk, room, out)
        _select(scores, positions, passed, topk, room, out)


def _splits(rows: int, width: int) -> int:
    return int(triton.next_power_of_2(max(1, min(PROGRAMS // rows, triton.cdiv(width, BLOCK), MOST_SPLITS))))


def _choose(
    scores: Tensor, positions: Tensor, passing: Tensor, passed: Tensor, topk: int, out: Tensor, room: int, *,
    everything: bool,
) -> None:  # fmt: skip
    gate.choose[(len(scores),)](
        scores, positions, passing, passed, out, scores.stride(0), topk, everything, room, 1024,
        num_warps=max(1, min(8, room // 512)),
    )  # fmt: skip


def _choose_gated(scores: Tensor, positions: Tensor, topk: int, room: int, out: Tensor) -> Tensor:
    """Chooses from what reaches each row's gate; gives how many did."""
    (rows, width), stride = scores.shape, scores.stride(0)
    splits = _splits(rows, width)
    gates = torch.empty(rows, dtype=torch.float32, device=scores.device)
    passed = torch.empty(rows, dtype=torch.int32, device=scores.device)
    passing = torch.empty(rows, room, dtype=torch.int32, device=scores.device)
    tallies = torch.empty(rows, splits, 2, dtype=torch.int32, device=scores.device) if splits > 1 else passed
    gate.set_gates[(rows,)](scores, positions, gates, stride, topk, room, room, num_warps=min(16, room // 512))
    if splits > 1:
        gate.count_passing[(rows, splits)](scores, positions, gates, tallies, stride, topk, BLOCK, num_warps=8)
    block, warps = (BLOCK, 8) if splits > 1 else (BLOCK // 2, 4)
    gate.gather_passing[(rows, splits)](
        scores, positions, gates, tallies, passing, passed, stride, topk, room, splits > 1, MOST_SPLITS, block,
        num_warps=warps,
    )  # fmt: skip
    _choose(scores, positions, passing, passed, topk, out, room, everything=False)
    return passed


def _select(scores: Tensor, positions: Tensor, passed: Tensor | None, topk: int, room: int, out: Tensor) -> None:
    """Radix selection of every row, or of those where fewer than ``topk`` or more than ``room`` passed."""
    (rows, width), stride, gated = scores.shape, scores.stride(0), passed is not None
    splits, which = _splits(rows, width), out if passed is None else passed
    counts = torch.zeros(rows, 4, 256, dtype=torch.int32, device=scores.device)
    tallies = torch.empty(rows, splits, 2, dtype=torch.int32, device=scores.device) if splits > 1 else counts
    for number in range(4):
        radix.count_digits[(rows, splits)](
            scores, positions, which, counts, stride, topk, room, gated, number, BLOCK, num_warps=8
        )
    if splits > 1:
        radix.tally[(rows, splits)](
            scores, positions, which, counts, tallies, stride, topk, room, gated, BLOCK, num_warps=8
        )
    radix.write_chosen[(rows, splits)](
        scores,
        positions,
        which,
        counts,
        tallies,
        out,
        stride,
        topk,
        room,
        gated,
        splits > 1,
        MOST_SPLITS,
        BLOCK,
        num_warps=8,
    )
