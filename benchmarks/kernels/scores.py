"""Index scores that are kept in memory: prompts and decoding, by tile."""

from __future__ import annotations

import time
from collections.abc import Iterator

import bounds
import torch
from apart import said_apart
from index_case import DIM, HEADS, TOPK, IndexCase
from scoring_rows import attempted, floor_ms, spelled
from timing import DEVICE, median_ms
from torch import Tensor

from keyeloop.model_backend.kernels import selecting
from keyeloop.model_backend.kernels.cuda import selection
from keyeloop.model_backend.kernels.cuda.scoring import Walk
from keyeloop.model_backend.kernels.jit import scores as scoring
from keyeloop.model_backend.kernels.jit.scores import Tile
from keyeloop.model_backend.keye.indexer import IndexerMode

QUERIES, CONTEXT, BATCH = 4096, 131072, 64
GOAL_MS = 1.05
TORCH_QUERIES = 64
TILES = (Tile(16, 64, 4, 5), Tile(8, 64, 4, 5))
WALKS = (Walk(), Walk(less=4), Walk(less=6), Walk(less=8), Walk(less=16), Walk(2, 4, False, 6))
Row = dict[str, object]


def rows(seconds: float, queries: int = QUERIES, context: int = CONTEXT, batch: int = BATCH) -> Iterator[Row]:
    """One row a tile, then the other mode, then decoding of a batch."""
    stop = time.monotonic() + seconds
    modes: tuple[IndexerMode, ...] = ("fp8", "exact")
    for mode in modes:
        case = IndexCase.of(mode, context, queries)
        out = torch.full((queries, context), torch.nan, device=DEVICE)
        known: Row = {"kernel": f"scores stored, {mode}", "shape": f"{queries} x {context}", "goal_ms": GOAL_MS}
        known |= {"floor_ms": floor_ms(case), "baseline": "torch bf16, 64 queries, scaled"}
        known |= {"baseline_ms": torch_ms(case)}
        for tile in TILES if mode == "fp8" else TILES[:1]:
            yield known | {"variant": spelled(tile)} | measured(case, out, tile=tile)
        if mode == "fp8":
            said = said_apart("scores")
            yield {"kernel": "scores in CUDA C++, small", "error": said}
            walks = () if said.startswith("failed") else WALKS
            yield from (known | {"variant": spelled(walk)} | repeated(case, out, walk) for walk in walks)
            if walks:
                yield from bounds.rows(case, (WALKS[0], WALKS[2]))
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


def repeated(case: IndexCase, expected: Tensor, walk: Walk) -> Row:
    """The kernel in CUDA C++: whether it has the bits that Triton's left in ``expected``, and its time."""
    out = torch.full_like(expected, torch.nan)

    def same() -> object:
        differ = int((out.view(torch.int32) != expected.view(torch.int32)).sum())
        return "the same bits" if not differ else f"wrong: {differ} differ, {error_of(case, out)}"

    return attempted(lambda: scoring.scores(*case.given, out, one_each=False, tile=walk), same)


def small() -> str:
    """Both results of the kernel in CUDA C++ beside Triton's, for two requests that meet in a tile."""
    case = IndexCase.of("fp8", 9024, 43, 2)
    for step in (1, 32):
        found, expected = (torch.full((86, 9024), torch.nan, device=DEVICE) for _ in range(2))
        for out, tile in ((expected, TILES[0]), (found, WALKS[0])):
            scoring.scores(*case.given, out, one_each=False, step=step, tile=tile)
        differ = (found.view(torch.int32) != expected.view(torch.int32)).nonzero()
        if len(differ):
            first = tuple(differ[0].tolist())
            return f"wrong: {len(differ)} differ, step {step}, first {first}: {found[first]} for {expected[first]}"
    chosen, wanted = (torch.full((86, TOPK), -7, dtype=torch.int32, device=DEVICE) for _ in range(2))
    for out, way in ((wanted, TILES[0]), (chosen, WALKS[0])):
        selecting.select_fused(*case.given, 9024, out, tile=way)
    lost = (chosen != wanted).any(1).nonzero().flatten().tolist()
    passed = selection.select(*case.given, 9024, chosen, walk=WALKS[0])
    return f"wrong: places of {lost[:9]}, {passed[:9].tolist()} pass" if lost else "the same bits"


def measured(
    case: IndexCase, out: Tensor, *, one_each: bool = False, graph: bool = False, tile: Tile | None = None
) -> Row:
    """Checked and timed; what fails says so."""

    def work() -> None:
        scoring.scores(*case.given, out, one_each=one_each, tile=tile)

    return attempted(work, lambda: error_of(case, out), graph)


def error_of(case: IndexCase, out: Tensor) -> object:
    """Largest error of some queries' scores as a part of the bound."""
    worst = 0.0
    for query in range(0, len(case.rows), max(1, len(case.rows) // 5)):
        exact, bound = case.exact_scores(query)
        if exact.numel() > TOPK:
            error = (out[query, : exact.numel()].double() - exact).abs() / bound.clamp_min(1e-30)
            worst = max(worst, float(error.nan_to_num(1e9).max()))
    return worst if worst <= 1 else f"wrong: {worst:.3g} times the bound"


def torch_ms(case: IndexCase) -> float:
    """Plain torch in bfloat16 on contiguous keys, for a few queries."""
    count = min(TORCH_QUERIES, len(case.q))
    keys = torch.randn(case.context, DIM, dtype=torch.bfloat16, device=DEVICE)
    asked = torch.randn(count * HEADS, DIM, dtype=torch.bfloat16, device=DEVICE)
    gates = case.weights[:count].bfloat16().unsqueeze(1)
    some = median_ms(lambda: torch.bmm(gates, (asked @ keys.t()).relu_().view(count, HEADS, -1)))
    return some * len(case.q) / count


if __name__ == "__main__":
    print(small())
