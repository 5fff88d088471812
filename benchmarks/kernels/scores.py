"""Index scores that are kept in memory: prompts and decoding, by tile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from ceilings import ceilings
from index_case import DIM, HEADS, TOPK, IndexCase
from timing import DEVICE, median_ms
from torch import Tensor

from keyeloop.model_backend.kernels.jit import scores as scoring
from keyeloop.model_backend.kernels.jit.scores import Tile
from keyeloop.model_backend.keye.indexer import IndexerMode

QUERIES, CONTEXT, BATCH = 4096, 131072, 64
GOAL_MS = 1.05
TORCH_QUERIES = 64
TILES = (
    Tile(16, 64, 4, 5),
    Tile(8, 64, 4, 5),
    Tile(16, 64, 4, 3),
    Tile(8, 128, 4, 5),
    Tile(16, 128, 8, 5),
    Tile(32, 64, 8, 5),
)
Row = dict[str, object]


def rows(seconds: float, queries: int = QUERIES, context: int = CONTEXT, batch: int = BATCH) -> Iterator[Row]:
    """One row a tile, then the other mode, then decoding of a batch."""
    stop = time.monotonic() + seconds
    modes: tuple[IndexerMode, ...] = ("fp8", "exact")
    for mode in modes:
        case = IndexCase.of(mode, context, queries)
        out = torch.full((queries, context), torch.nan, device=DEVICE)
        known: Row = {"kernel": f"scores stored, {mode}", "shape": f"{queries} x {context}", "goal_ms": GOAL_MS}
        known |= {
            "floor_ms": floor_ms(case),
            "baseline": "torch bf16, 64 queries, scaled",
            "baseline_ms": torch_ms(case),
        }
        default = scoring.Scoring.of(case.q, case.weights, case.index_k).tile(one_each=False)
        for tile in dict.fromkeys((default, *TILES) if mode == "fp8" else (default, TILES[1], TILES[2])):
            if time.monotonic() > stop:
                return
            yield known | {"variant": spelled(tile)} | measured(case, out, tile=tile)
        del case, out
    for shared in (False, True):
        case = IndexCase.of("fp8", context, 1, batch, shared)
        out = torch.full((batch, context), torch.nan, device=DEVICE)
        known = {"kernel": "scores stored, decoding", "shape": f"{batch} x {context}"}
        known |= {"variant": "shared" if shared else "private", "floor_ms": floor_ms(case)}
        for one_each in (True, False):
            if time.monotonic() > stop:
                return
            part = {"variant": f"{known['variant']}, {'one' if one_each else 'many'} each"}
            yield known | part | measured(case, out, one_each=one_each, graph=True)


def measured(
    case: IndexCase, out: Tensor, *, one_each: bool = False, graph: bool = False, tile: Tile | None = None
) -> Row:
    """Checked and timed; what fails says so."""

    def work() -> None:
        scoring.scores(*case.given, out, one_each=one_each, tile=tile)

    return attempted(work, lambda: error_of(case, out), graph)


def attempted(work: Callable[[], Any], error: Callable[[], object], graph: bool = False) -> Row:
    """``error`` of what ``work`` wrote, and its time."""
    try:
        work()
        return {"error": error(), "ms": median_ms(work, graph)}
    except Exception as failure:
        return {"error": f"{type(failure).__name__}: {failure}"}


def error_of(case: IndexCase, out: Tensor) -> object:
    """Largest error of some queries' scores as a part of the bound."""
    worst = 0.0
    for query in range(0, len(case.rows), max(1, len(case.rows) // 5)):
        exact, bound = case.exact_scores(query)
        if exact.numel() > TOPK:
            error = (out[query, : exact.numel()].double() - exact).abs() / bound.clamp_min(1e-30)
            worst = max(worst, float(error.nan_to_num(1e9).max()))
    return worst if worst <= 1 else f"wrong: {worst:.3g} times the bound"


def floor_ms(case: IndexCase, stored: bool = True) -> float:
    """Products, or scores written and keys read."""
    pairs = float((case.positions.double() + 1).sum())
    keys = len(case.index_k.values) * (DIM * case.index_k.values.element_size() + 4)
    flop = {"fp8_flop" if case.index_k.scales is not None else "bf16_flop": pairs * HEADS * DIM * 2}
    return ceilings().floor_ms(nbytes=keys + (4 * pairs if stored else 0), **flop)


def torch_ms(case: IndexCase) -> float:
    """Plain torch in bfloat16 on contiguous keys, for a few queries."""
    count = min(TORCH_QUERIES, len(case.q))
    keys = torch.randn(case.context, DIM, dtype=torch.bfloat16, device=DEVICE)
    asked = torch.randn(count * HEADS, DIM, dtype=torch.bfloat16, device=DEVICE)
    gates = case.weights[:count].bfloat16().unsqueeze(1)
    some = median_ms(lambda: torch.bmm(gates, (asked @ keys.t()).relu_().view(count, HEADS, -1)))
    return some * len(case.q) / count


def spelled(tile: Tile) -> str:
    """Queries x keys, warps, stages."""
    return f"{tile.queries} x {tile.keys}, {tile.warps} warps, {tile.stages} stages"
