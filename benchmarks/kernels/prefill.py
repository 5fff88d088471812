"""Sparse attention given the choices: prefill by unions of adjacent queries beside gathering for each; then decode.

Neighbours share a stated part of random choices. Building the unions is part of every time but where it is timed alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import decode_attention
import torch
from ceilings import ceilings
from chosen_case import SMALL, TOPK, Case
from timing import DEVICE, median_ms
from torch import Tensor

from keyeloop.model_backend.kernels.jit import attention, union, union_attention
from keyeloop.model_backend.kernels.jit.attention import Cut
from keyeloop.model_backend.kernels.jit.union import WORK, Work
from keyeloop.model_backend.kernels.jit.union_attention import Tiling

CONTEXT, QUERIES = 131072, 32 if SMALL else 8192
GOAL_MS = 1.4
NAIVE = Cut(1, 32, 1, 2, turned=False)
CUTS = (Cut(1, 32, 1, 3, apart=True), Cut(1, 16, 1, 3, apart=True), Cut(1, 16, 1, 3), Cut(1, 32, 1, 2, apart=True))
TILINGS = (
    Tiling(8, 32, 4, 3), Tiling(8, 32, 4, 2), Tiling(8, 32, 4, 3, apart=False), Tiling(8, 32, 4, 4),
    Tiling(8, 64, 4, 2), Tiling(16, 32, 8, 4),
)  # fmt: skip
WORKS = (WORK, Work(264, 4096, 2048, 16, 64), Work(132, 4096, 2048, 16, 128), Work(396, 2048, 1024, 8, 80))
CURVE = (0.9, 0.5, 0.0, 0.7, 0.8, 0.95, 0.6)
Row = dict[str, object]


def rows(seconds: float) -> Iterator[Row]:
    """The goal's shape with all tilings and builders, the gather's, the curve over overlap, then decoding."""
    stop = time.monotonic() + seconds
    case = Case(1, CONTEXT, QUERIES)
    alike, apart = case.choices(0.9), case.choices(0.0)
    _compile(case, alike)
    naive_alike = yield from _gathers(case, alike, "90 %", (NAIVE,), None, stop)
    tiling = yield from _tilings(case, alike, naive_alike, stop)
    work = yield from _builders(case, alike, stop)
    naive = yield from _gathers(case, apart, "0 %", (NAIVE, *CUTS), None, stop)
    for shared in CURVE:
        if time.monotonic() < stop:
            plain = {0.0: naive, 0.9: naive_alike}.get(shared)
            yield from _curve(case, case.choices(shared), shared, tiling, work, plain)
    yield from decode_attention.rows(min(0.3 * seconds, stop - time.monotonic()))


def _shape(shared: str) -> str:
    return f"Q={QUERIES} L={CONTEXT // 1024}K k={TOPK} shared {shared}"


def _timed(row: Row, case: Case, chosen: Tensor, call: Callable[[], Tensor]) -> Row:
    try:
        row["error"] = case.error(call(), chosen, max(1, QUERIES // 64))
        row["ms"] = median_ms(call, seconds=0.1)
    except Exception as problem:
        row["error"] = f"{type(problem).__name__}: {problem}"
    return row


def _floor(case: Case) -> float:
    return ceilings().floor_ms(nbytes=case.bytes_once(case.context), bf16_flop=case.products())


def _gather(case: Case, chosen: Tensor, cut: Cut) -> Callable[[], Tensor]:
    def call() -> Tensor:
        out = torch.empty_like(case.q)
        attention.gather(case.q, case.k, case.v, case.table, case.rows, chosen, case.scale, out, cut=cut)
        return out

    return call


def _prefill(case: Case, chosen: Tensor, **how: Any) -> Callable[[], Tensor]:
    return lambda: union_attention.prefill_attention(
        case.q, case.k, case.v, case.table, case.rows, chosen, case.scale, case.context, **how
    )


def _gathers(
    case: Case, chosen: Tensor, shared: str, cuts: tuple[Cut, ...], naive_ms: float | None, stop: float
) -> Any:
    for cut in cuts:
        if time.monotonic() > stop:
            break
        row: Row = {"kernel": "gather", "shape": _shape(shared), "variant": spelled(cut), "baseline": "naive gather",
                    "baseline_ms": naive_ms, "floor_ms": _floor(case)}  # fmt: skip
        _timed(row, case, chosen, _gather(case, chosen, cut))
        naive_ms = row.get("ms") if cut == NAIVE else naive_ms  # type: ignore[assignment]
        row["baseline_ms"] = naive_ms
        yield row
    return naive_ms


def _tilings(case: Case, chosen: Tensor, naive_ms: float | None, stop: float) -> Any:
    best, least = union_attention.TILING, float("inf")
    for tiling in TILINGS:
        if time.monotonic() > stop:
            break
        row: Row = {"kernel": "prefill by unions", "shape": _shape("90 %"), "variant": spelled(tiling),
                    "baseline": "naive gather", "baseline_ms": naive_ms, "floor_ms": _floor(case),
                    "goal_ms": GOAL_MS}  # fmt: skip
        _timed(row, case, chosen, _prefill(case, chosen, tiling=tiling))
        with suppress(Exception):
            made = union.unite(
                chosen, case.rows, case.table, tiling.queries, share=union_attention.SHARE, width=case.context
            )
            row["union / k"] = float(made.lengths.float().mean()) / TOPK
            out = torch.empty_like(case.q)
            attend = (case.q, case.k, case.v, made, case.scale, out, tiling)
            row["attend_ms"] = median_ms(lambda attend=attend: union_attention.attend_blocks(*attend), seconds=0.1)  # type: ignore[misc]
        if isinstance(row.get("ms"), float) and isinstance(row["error"], float) and row["ms"] < least:  # type: ignore[operator]
            best, least = tiling, row["ms"]  # type: ignore[assignment]
        yield row
    return best


def _builders(case: Case, chosen: Tensor, stop: float) -> Any:
    best, least, expected = WORK, float("inf"), None
    for work in WORKS:
        if time.monotonic() > stop:
            break
        row: Row = {"kernel": "unions built", "shape": _shape("90 %"), "variant": spelled(work),
                    "floor_ms": ceilings().floor_ms(nbytes=4.0 * chosen.numel())}  # fmt: skip
        build = partial(
            union.unite, chosen, case.rows, case.table, 8, share=union_attention.SHARE, width=case.context, work=work
        )
        try:
            made = build()
            expected = expected or _by_sorting(case, chosen)
            row["error"] = "exact" if _same(made, expected) else "wrong: not the lists that sorting gives"
            row["ms"] = taken = median_ms(build, seconds=0.1)
            if row["error"] == "exact" and taken < least:
                best, least = work, taken
        except Exception as problem:
            row["error"] = f"{type(problem).__name__}: {problem}"
        yield row
    return best


def _by_sorting(case: Case, chosen: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Slots and masks of some blocks of eight, by torch."""
    found = []
    for block in range(0, QUERIES // 8, max(1, QUERIES // 256)):
        places, which = chosen[block * 8 : block * 8 + 8].flatten().sort(stable=True)
        bits = (1 << (which // TOPK)).to(torch.int64)
        distinct, inverse = places.unique_consecutive(return_inverse=True)
        masks = torch.zeros(len(distinct), dtype=torch.int64, device=DEVICE).index_add_(0, inverse, bits)
        found.append((case.table[0, distinct.long()], masks))
    return found


def _same(made: union.Unions, expected: list[tuple[Tensor, Tensor]]) -> bool:
    for number, (slots, masks) in enumerate(expected):
        block = number * max(1, QUERIES // 256)
        length = int(made.lengths[block])
        if length != len(slots) or not torch.equal(made.slots[block, :length], slots):
            return False
        if not torch.equal(made.masks[block, :length].long(), masks):
            return False
    return True


def _curve(
    case: Case, chosen: Tensor, shared: float, tiling: Tiling, work: Work, naive_ms: float | None
) -> Iterator[Row]:
    """By the fastest cuts: as served, and with unions and gather each forced: where one overtakes the other."""
    shape, floor = _shape(f"{shared:.0%}"), _floor(case)
    if naive_ms is None:
        naive_ms = median_ms(_gather(case, chosen, NAIVE), seconds=0.1)
    sizes = union.unite(chosen, case.rows, case.table, tiling.queries, width=case.context, work=work).lengths.float()
    known: Row = {"shape": shape, "baseline": "naive gather", "baseline_ms": naive_ms, "floor_ms": floor,
                  "union / k": float(sizes.mean()) / TOPK}  # fmt: skip
    for name, how in (("as served", {}), ("always unions", {"share": 1.0}), ("never unions", {"share": 0.0})):
        row: Row = {"kernel": "prefill by unions", "variant": name} | known
        yield _timed(row, case, chosen, _prefill(case, chosen, tiling=tiling, work=work, **how))


def spelled(how: Cut | Tiling | Work) -> str:
    """Of a configuration."""
    return " ".join(f"{name}={value}" for name, value in vars(how).items())


def _compile(case: Case, chosen: Tensor) -> None:
    """Compile all variants at once, on few queries; what fails shows again where it is timed."""
    if SMALL:
        return

    def gathered(cut: Cut) -> None:
        with suppress(Exception):
            few = slice(0, 8)
            out = torch.empty_like(case.q[few])
            attention.gather(
                case.q[few], case.k, case.v, case.table, case.rows[few], chosen[few], case.scale, out, cut=cut
            )

    def united(tiling: Tiling) -> None:
        with suppress(Exception):
            few = slice(0, 16)
            union_attention.prefill_attention(
                case.q[few], case.k, case.v, case.table, case.rows[few], chosen[few], case.scale, tiling=tiling
            )

    def made(work: Work) -> None:
        with suppress(Exception):
            few = slice(0, 16)
            union.unite(chosen[few], case.rows[few], case.table, 8, share=union_attention.SHARE, work=work)

    with ThreadPoolExecutor(12) as pool:
        for work in WORKS:
            pool.submit(made, work)
        for cut in (NAIVE, *CUTS, *decode_attention.MANY, *decode_attention.FEW):
            pool.submit(gathered, cut)
        for tiling in TILINGS:
            pool.submit(united, tiling)
    torch.cuda.synchronize()
