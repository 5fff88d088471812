"""Exact top-k of stored scores, and selection without them beside selection by parts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import cache
from itertools import chain
from typing import Any

import torch
from apart import said_apart
from ceilings import ceilings
from index_case import TOPK, IndexCase
from scoring_rows import attempted, floor_ms, spelled
from timing import DEVICE, median_ms
from torch import Tensor

from keyeloop.model_backend.kernels import ops, reference, selecting
from keyeloop.model_backend.kernels.cuda import choice
from keyeloop.model_backend.kernels.cuda.scoring import Walk
from keyeloop.model_backend.kernels.jit import fused
from keyeloop.model_backend.kernels.jit import topk as selection
from keyeloop.model_backend.kernels.jit.scores import Tile
from keyeloop.model_backend.keye.indexer import IndexerMode

GIVEN = (4096, 131072)
LONG: tuple[tuple[IndexerMode, int, int, float | None], ...] = (
    ("fp8", 8192, 262144, 5.5), ("fp8", 2048, 131072, None), ("exact", 2048, 131072, None), ("fp8", 2048, 32768, None)
)  # fmt: skip
WALKS, TRITON = (Walk(), Walk(2, 6, False)), Tile(16, 64, 4, 5)
ROWS = (choice.Row(), choice.Row(256, 3))
DECODING = (64, 131072)
Row = dict[str, object]


def rows(
    seconds: float, given: tuple[int, int] = GIVEN, long: Any = LONG, decoding: tuple[int, int] = DECODING
) -> Iterator[Row]:
    """The most telling first: without scores in memory, of given scores, decoding, other tiles."""
    stop = time.monotonic() + seconds
    makers = [fused_rows(*long[0]), given_rows(*given), *(fused_rows(*each) for each in long[1:3])]
    makers += [decode_rows(*decoding), *(fused_rows(*each) for each in long[3:])]
    for row in chain.from_iterable(makers):
        yield row
        if time.monotonic() > stop:
            return


def fused_rows(mode: IndexerMode, queries: int, context: int, goal_ms: float | None) -> Iterator[Row]:
    """Selection without scores in memory, beside by parts; then what each kernel took."""
    case = IndexCase.of(mode, context, queries)
    out, expected = (torch.full((queries, TOPK), -7, dtype=torch.int32, device=DEVICE) for _ in range(2))
    by_parts(case, expected)
    row: Row = {"kernel": f"select, {mode}", "shape": f"{queries} x {context}"}
    row |= {"floor_ms": floor_ms(case, stored=False), "goal_ms": goal_ms}
    beside: Row = {"baseline": "by parts", "baseline_ms": median_ms(lambda: by_parts(case, out), seconds=0.1)}
    for tile in (*walks_here(), TRITON) if mode == "fp8" else (TRITON,):
        name = f"Triton, {spelled(tile)}" if tile is TRITON else spelled(tile)
        out.fill_(-7)
        work = lambda t=tile: selecting.select_fused(*case.given, context, out, tile=t)  # type: ignore[misc]  # noqa: E731
        yield row | {"variant": name} | attempted(work, lambda w=work: same(w, out, expected)) | beside  # type: ignore[misc]
        for part, taken in profiled(work):
            yield {"kernel": row["kernel"], "shape": row["shape"], "variant": f"{name}, part {part}", "ms": taken}
    room = selection.room_for(TOPK)
    some = min(queries, selecting.FUSED_BYTES // fused.bytes_per_query(context, room))
    passed = fused.select(*(x[-some:] for x in case.given[:2]), *case.given[2:4],
                          *(x[-some:] for x in case.given[4:6]), TOPK, room, context, out[-some:])  # fmt: skip
    missed = int(((passed < TOPK) | (passed > room)).sum())
    yield row | {"variant": f"passed {int(passed.min())} to {int(passed.max())}, {missed} missed", "ms": None}


@cache
def walks_here() -> tuple[Walk, ...]:
    """Ways of the kernel in CUDA C++, if a first run apart ended well."""
    return () if said_apart("scores").startswith("failed") else WALKS


def same(work: Callable[[], Any], out: Tensor, expected: Tensor) -> object:
    """Twice the same bits, and those that selection by parts gives."""
    differ = int((out != expected).any(1).sum())
    before = out.clone()
    work()
    if not torch.equal(before, out):
        return "wrong: not the same bits again"
    return "exact" if not differ else f"wrong: {differ} rows"


def by_parts(case: IndexCase, out: Tensor) -> None:
    """Scores written and read."""
    selecting.select_by_parts(*case.given, case.context, out, one_each=False)


def given_rows(count: int, width: int) -> Iterator[Row]:
    """Scores that lie in memory."""
    scores = torch.randn(count, width, device=DEVICE)
    positions = torch.full((count,), width - 1, dtype=torch.int32, device=DEVICE)
    out = torch.full((count, TOPK), -7, dtype=torch.int32, device=DEVICE)
    some = slice(0, count, max(1, count // 64))

    def exact() -> object:
        expected = reference.top_positions(scores[some], positions[some] + 1, TOPK)
        return "exact" if torch.equal(out[some], expected) else "wrong: other places"

    row: Row = {"kernel": "top-k of given scores", "shape": f"{count} x {width}", "goal_ms": 0.75}
    row["floor_ms"] = ceilings().floor_ms(nbytes=4.0 * count * (width + TOPK))
    torch_ms = median_ms(lambda: scores.topk(TOPK, -1, sorted=False), seconds=0.1)
    row |= {"baseline": "torch.topk, ties any", "baseline_ms": torch_ms}
    said = said_apart("topk")
    yield {"kernel": "top-k in CUDA C++, small", "error": said}
    for way in () if said.startswith("failed") else ROWS:
        out.fill_(-7)
        work = lambda w=way: selection.top_positions(scores, positions, TOPK, out, w)  # type: ignore[misc]  # noqa: E731
        yield row | {"variant": str(way)} | attempted(work, exact)
    out.fill_(-7)
    yield (
        row
        | {"variant": "gate"}
        | attempted(lambda: selection.top_positions(scores, positions, TOPK, out, "triton"), exact)
    )
    for name, taken in profiled(lambda: selection.top_positions(scores, positions, TOPK, out, "triton")):
        yield {"kernel": row["kernel"], "shape": row["shape"], "variant": f"part {name}", "ms": taken}


def small() -> str:
    """The kernel in CUDA C++ beside sorting: many ties, rows of every length, infinities, no number, zeros."""
    rows, width = 96, 12288
    torch.manual_seed(0)
    scores = torch.randn(rows, width, device=DEVICE)
    scores[:8] = (scores[:8] * 3).round()
    scores[8:12] = scores[8:12].clamp_min(0.5)
    scores[12:16, ::7] = torch.inf
    scores[16:20, ::2] = -torch.inf
    scores[20:24, ::5] = torch.nan
    scores[24:28] = torch.where(scores[24:28] < 1, -0.0, 0.0)
    scores[28:32] -= 1000
    positions = torch.full((rows,), width - 1, dtype=torch.int32, device=DEVICE)
    lengths = [0, 1, 2047, 2048, 2049, 2050, 4097, 6143, 6144, 6145, 6149, 8191, 8193, 12287]
    positions[40 : 40 + len(lengths)] = torch.tensor(lengths, dtype=torch.int32, device=DEVICE) - 1
    expected = reference.top_positions(scores, positions + 1, TOPK)
    for way in ROWS:
        out = torch.full((rows, TOPK), -7, dtype=torch.int32, device=DEVICE)
        selection.top_positions(scores, positions, TOPK, out, way)
        wrong = (out != expected).any(1).nonzero().flatten().tolist()
        if wrong:
            return f"wrong: {way}, rows {wrong[:20]}"
    return "exact"


def decode_rows(batch: int, context: int) -> Iterator[Row]:
    """One token of each request, scores and top-k, in a CUDA graph."""
    for shared in (False, True):
        case = IndexCase.of("fp8", context, 1, batch, shared)
        for one_each in (True, False):
            name = f"{'shared' if shared else 'private'}, {'one' if one_each else 'many'} each"
            row: Row = {"kernel": "select, decoding", "shape": f"{batch} x {context}", "variant": name}
            row["floor_ms"] = floor_ms(case, stored=False)
            work = lambda c=case, o=one_each: ops.select(*c.given, one_each=o)  # type: ignore[misc]  # noqa: E731
            yield row | attempted(work, lambda w=work, c=case: agrees(w(), c), graph=True)  # type: ignore[misc]


def agrees(found: Tensor, case: IndexCase) -> object:
    """Whether every third set is best within the bound of its scores."""
    for query in range(0, len(found), 3):
        exact, bound = case.exact_scores(query)
        chosen = found[query].long()
        least, slack = exact.topk(TOPK).values[-1], 2 * bound.max()
        left = torch.ones_like(exact, dtype=torch.bool)
        left[chosen] = False
        if bool(
            (chosen.diff() <= 0).any() | (exact[chosen] < least - slack).any() | (exact[left] > least + slack).any()
        ):
            return "wrong: a better place was left"
    return "within the bound"


def profiled(work: Callable[[], Any]) -> list[tuple[str, float]]:
    """Milliseconds of each kernel of one call, longest first; nothing where the profiler does not work."""
    if DEVICE.type != "cuda":
        return []
    try:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as found:
            work()
            torch.cuda.synchronize()
        each = [(event.key[:40], event.device_time_total / 1e3) for event in found.key_averages()]
    except Exception as error:
        return [(f"not profiled: {error}", float("nan"))]
    return sorted((one for one in each if one[1] > 0), key=lambda one: -one[1])[:10]


if __name__ == "__main__":
    print(small())
