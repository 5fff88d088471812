"""What rows of scoring and of selection share: their floor, how a variant is spelled, and a try that may fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ceilings import ceilings
from index_case import DIM, HEADS, IndexCase
from timing import median_ms

from keyeloop.model_backend.kernels.cuda.scoring import Walk
from keyeloop.model_backend.kernels.jit.scores import Tile

Row = dict[str, object]


def attempted(work: Callable[[], Any], error: Callable[[], object], graph: bool = False) -> Row:
    """``error`` of what ``work`` wrote, and its time."""
    try:
        work()
        return {"error": error(), "ms": median_ms(work, graph)}
    except Exception as failure:
        return {"error": f"{type(failure).__name__}: {failure}"}


def floor_ms(case: IndexCase, stored: bool = True) -> float:
    """Products, or scores written and keys read."""
    pairs = float((case.positions.double() + 1).sum())
    keys = len(case.index_k.values) * (DIM * case.index_k.values.element_size() + 4)
    flop = {"fp8_flop" if case.index_k.scales is not None else "bf16_flop": pairs * HEADS * DIM * 2}
    return ceilings().floor_ms(nbytes=keys + (4 * pairs if stored else 0), **flop)


def spelled(tile: Tile | Walk) -> str:
    """Queries x keys, warps, stages; or of a walk tiles a step and in memory."""
    if isinstance(tile, Walk):
        return f"CUDA, {tile.tiles} of {tile.stages} tiles{', fenced' if tile.fenced else ''}, {tile.less} less"
    return f"{tile.queries} x {tile.keys}, {tile.warps} warps, {tile.stages} stages"
