"""Sparse decode attention given the choices, in a CUDA graph: 64 requests on one context, 64 on their own, one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

import torch
from ceilings import ceilings
from chosen_case import SMALL, TOPK, Case
from timing import median_ms
from torch import Tensor

from keyeloop.model_backend.kernels.jit import attention
from keyeloop.model_backend.kernels.jit.attention import Cut

USUAL = Cut(2, 64, 4, 2, turned=False)
MANY = (
    USUAL, Cut(2, 64, 4, 2), Cut(2, 64, 4, 3, turned=False), Cut(4, 32, 1, 2), Cut(2, 32, 2, 3), Cut(2, 64, 2, 3),
)  # fmt: skip
FEW = (Cut(32, 64, 4, 2, turned=False), Cut(32, 64, 2, 2), Cut(32, 32, 1, 2), Cut(32, 64, 4, 2))
Row = dict[str, object]


def rows(seconds: float) -> Iterator[Row]:
    """Shared and private contexts of 64 requests, then one request."""
    stop = time.monotonic() + seconds
    batch = 4 if SMALL else 64
    for requests, together, goal, cuts in ((1, batch, 0.055, MANY), (batch, 1, 0.070, MANY), (1, 1, None, FEW)):
        if time.monotonic() < stop:
            yield from _cuts(Case(requests, 131072, together), goal, cuts, stop)
        with suppress(RuntimeError):
            torch.cuda.empty_cache()


def _cuts(case: Case, goal: float | None, cuts: tuple[Cut, ...], stop: float) -> Iterator[Row]:
    chosen, baseline = case.choices(0.0), None
    common: Row = {"kernel": "decode attention", "goal_ms": goal, "baseline": "split naive gather",
                   "shape": f"B={len(case.rows)} contexts={case.requests} L=128K k={TOPK}",
                   "floor_ms": _floor(case, chosen)}  # fmt: skip
    for cut in cuts:
        if time.monotonic() > stop:
            return
        row = _timed(case, chosen, cut)
        baseline = row.get("ms") if baseline is None else baseline
        yield common | {"variant": " ".join(f"{a}={b}" for a, b in vars(cut).items()), "baseline_ms": baseline} | row


def _timed(case: Case, chosen: Tensor, cut: Cut) -> Row:
    row: Row = {}
    try:
        row["error"] = case.error(_attend(case, chosen, cut), chosen, 3)
        row["ms"] = median_ms(lambda: _attend(case, chosen, cut), graph=True, seconds=0.1)
    except Exception as problem:
        row["error"] = f"{type(problem).__name__}: {problem}"
    return row


def _attend(case: Case, chosen: Tensor, cut: Cut) -> Tensor:
    out = torch.empty_like(case.q)
    attention.gather(case.q, case.k, case.v, case.table, case.rows, chosen, case.scale, out, cut=cut)
    return out


def _floor(case: Case, chosen: Tensor) -> float:
    """By the distinct keys of each context."""
    keys = sum(len(some.unique()) for some in chosen.view(case.requests, -1))
    return ceilings().floor_ms(nbytes=case.bytes_once(keys), bf16_flop=case.products())
