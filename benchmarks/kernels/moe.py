"""The mixture of experts of the 30B model's layer, from one token to 16,384: every stage, several tiles, its peers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from ceilings import ceilings
from moe_peers import Grouped, Structured
from timing import DEVICE, median_ms
from torch import Tensor

from keyeloop.model_backend.kernels import moe
from keyeloop.model_backend.kernels.jit import moe_layer, moe_route
from keyeloop.model_backend.kernels.jit.moe_layer import Plan, Tile

GPU = DEVICE.type == "cuda"
EXPERTS, TOP, HIDDEN, INTER = (128, 8, 2048, 768) if GPU else (8, 2, 64, 32)
DTYPE = torch.bfloat16 if GPU else torch.float32
TOKENS = (64, 16384, 4096, 1, 8, 256, 1024) if GPU else (3, 20)
DIFFERENT = 4
"""Inputs that calls of few tokens go through in turn, since the weights of one might stay in the L2 cache."""
CHECKED, REPEATS, LIMIT = 128, 20, 1e-2
FEW = Plan(
    16, Tile(64, 128, 4, 3), Tile(128, 128, 4, 3)
), (
    Tile(64, 128, 4, 4, swapped=True), Tile(64, 128, 4, 3, lasting=3), Tile(128, 128, 8, 2),
), (
    Tile(128, 128, 4, 4, swapped=True), Tile(128, 128, 4, 3, lasting=3), Tile(64, 128, 4, 4),
)  # fmt: skip
ALONE = Plan(
    16, Tile(32, 128, 4, 4), Tile(64, 128, 4, 4)
), (
    Tile(32, 64, 4, 6), Tile(32, 64, 4, 8), Tile(32, 128, 4, 5, swapped=True), Tile(16, 128, 4, 6),
), (
    Tile(64, 64, 4, 6), Tile(64, 128, 4, 5, swapped=True), Tile(32, 128, 4, 5),
)  # fmt: skip
SOME = Plan(
    32, Tile(128, 128, 8, 3), Tile(128, 128, 4, 3)
), (
    Tile(64, 128, 4, 3), Tile(64, 128, 4, 4, swapped=True),
), (
    Tile(128, 128, 4, 4, swapped=True), Tile(256, 128, 8, 3),
)  # fmt: skip
MORE = Plan(
    64, Tile(64, 64, 4, 4, joined=True), Tile(128, 64, 4, 4)
), (
    Tile(128, 64, 8, 4, joined=True), Tile(64, 64, 4, 3, joined=True, lasting=2),
), (
    Tile(256, 64, 8, 4), Tile(128, 64, 4, 3, lasting=2),
)  # fmt: skip
MANY = Plan(
    128, Tile(128, 64, 8, 4, joined=True), Tile(256, 64, 8, 4, lasting=1)
), (
    Tile(128, 64, 8, 4, joined=True, lasting=1, copied=True), Tile(128, 64, 8, 4, joined=True, lasting=1),
    Tile(128, 64, 8, 4),
), (
    Tile(256, 64, 8, 3, lasting=1, copied=True), Tile(256, 32, 8, 6, lasting=1, copied=True),
    Tile(128, 64, 4, 3, lasting=2),
)  # fmt: skip
OTHERS = {
    256: Plan(16, Tile(64, 128, 4, 3), Tile(128, 128, 4, 3), chained=True),
    1024: Plan(32, Tile(128, 128, 8, 3), Tile(128, 128, 4, 3), chained=True),
    4096: Plan(64, Tile(128, 64, 8, 4, joined=True), Tile(128, 64, 4, 4)),
}
"""Other heights of a block."""
SMALL = Plan(16, Tile(16, 32, 4, 2), Tile(32, 32, 4, 2)), (Tile(16, 32, 4, 2, joined=True),), ()


def rows(seconds: float) -> Iterator[dict[str, object]]:
    """One number of tokens after the other, the most telling first."""
    stop = time.monotonic() + seconds
    torch.manual_seed(8)
    gate, w13, w2 = (
        torch.empty(shape, dtype=DTYPE, device=DEVICE).normal_(std=shape[-1] ** -0.5)
        for shape in ((EXPERTS, HIDDEN), (EXPERTS, 2 * INTER, HIDDEN), (EXPERTS, HIDDEN, INTER))
    )
    for tokens in TOKENS:
        if time.monotonic() > stop:
            return
        layer = Layer(tokens, gate, w13, w2)
        for row in layer.rows(stop):
            yield {"shape": f"T={tokens} E={EXPERTS} top={TOP} {HIDDEN}x{INTER}", **row}


def candidates(tokens: int) -> tuple[Plan, tuple[Tile, ...], tuple[Tile, ...]]:
    """A plan, and further tiles for both products."""
    if not GPU:
        return SMALL
    limits = ((1, ALONE), (8, FEW), (24, FEW), (96, SOME), (256, SOME), (1024, MORE))
    return next((found for most, found in limits if tokens <= most), MANY) if tokens != 64 else FEW


class Layer:
    """One number of tokens."""

    def __init__(self, tokens: int, gate: Tensor, w13: Tensor, w2: Tensor) -> None:
        self.tokens, self.gate, self.w13, self.w2 = tokens, gate, w13, w2
        inputs = DIFFERENT if tokens <= 8 else 1
        self.xs = [torch.randn(tokens, HIDDEN, dtype=DTYPE, device=DEVICE) for _ in range(inputs)]
        self.graph = tokens <= 1024
        chosen = moe.route(self.xs[0], gate, TOP)[1]
        self.touched = int(chosen.unique().numel())
        expert_bytes = (w13[0].numel() + w2[0].numel()) * w13.element_size()
        flop, moved = 6.0 * tokens * TOP * HIDDEN * INTER, 2.0 * tokens * HIDDEN * w13.element_size()
        self.floor_ms = ceilings().floor_ms(nbytes=self.touched * expert_bytes + moved, bf16_flop=flop)

    def rows(self, stop: float) -> Iterator[dict[str, Any]]:
        """Check, peers, stages, whole."""
        plan, firsts, seconds = candidates(self.tokens)
        yield {"kernel": "moe checked", "variant": spelled(plan), "error": self.checked(plan)}
        peer_ms, peers = 0.0, list(self.peers())
        for name, call in peers:
            row = self.timed(f"moe peer: {name}", "as shipped", call, seconds=0.3)
            peer_ms = peer_ms or float(row.get("ms", 0.0))
            row["floor_ms"] = self.floor_ms
            if "ms" in row and "products" not in name:
                found, ours = call()[0].double(), self.run(self.xs[0], plan).double()
                row["error"] = f"{float((found - ours).norm() / ours.norm()):.1e} from ours"
            yield row
        self.compile_together(plan, firsts, seconds)
        best: dict[str, tuple[float, Tile]] = {}
        for stage, tiles in (("first", (plan.first, *firsts)), ("second", (plan.second, *seconds))):
            for tile in tiles:
                if time.monotonic() > stop:
                    break
                row = self.timed(f"moe {stage} product", spelled(tile), self.stage(stage, plan.rows, tile))
                yield row
                if "ms" in row:
                    best[stage] = min(best.get(stage, (1e9, tile)), (row["ms"], tile), key=lambda pair: pair[0])
        if "first" not in best or "second" not in best:
            return
        for chained in (False, True) if GPU else (False,):
            name = f"rows {plan.rows}{'; chained' if chained else ''}"
            yield self.timed("moe routing", name, self.stage("route", plan.rows, chained=chained))
        yield self.timed("moe sum", "", self.stage("sum", plan.rows))
        goal = {64: 1.03 * peer_ms, 16384: 2.3}.get(self.tokens)
        fastest = replace(plan, first=best["first"][1], second=best["second"][1])
        wholes = [fastest, replace(fastest, chained=True)] if GPU else [fastest]
        for chosen in [*wholes, *(OTHERS[n] for n in (self.tokens,) if n in OTHERS)]:
            error = self.checked(chosen)
            whole = self.timed("moe whole", spelled(chosen), self.each(partial(self.run, plan=chosen)), seconds=0.3)
            yield {
                "error": error, "baseline": "structured, without routing", "baseline_ms": peer_ms or None,
                "floor_ms": self.floor_ms, "goal_ms": goal, "experts": self.touched, **whole,
            }  # fmt: skip

    def run(self, x: Tensor, plan: Plan) -> Tensor:
        """The layer on Triton."""
        return moe_layer.mixture_of_experts(x, self.gate, self.w13, self.w2, TOP, True, plan)

    def each(self, call: Callable[[Tensor], Any]) -> Callable[[], Any]:
        """``call`` of every input, in turn."""
        return lambda: [call(x) for x in self.xs]

    def stage(self, name: str, block: int, tile: Tile | None = None, chained: bool = False) -> Callable[[], Any]:
        """One stage of every input, the earlier ones done before."""
        if name == "route":
            return self.each(lambda x: moe_route.route(x, self.gate, TOP, True, block, chained))
        made = [moe_route.route(x, self.gate, TOP, True, block) for x in self.xs]
        if name == "first":
            return lambda: [
                moe_layer.first_product(x, self.w13, one, tile) for x, one in zip(self.xs, made, strict=True)
            ]
        places = len(made[0].pairs)
        active = torch.randn(places, INTER, dtype=DTYPE, device=DEVICE)
        if name == "second":
            return lambda: [moe_layer.second_product(active, self.w2, one, tile) for one in made]
        sorted_rows, out = torch.randn(places, HIDDEN, dtype=DTYPE, device=DEVICE), torch.empty_like(self.xs[0])
        return lambda: [moe_layer.combine(sorted_rows, one, out) for one in made]

    def timed(self, kernel: str, variant: str, call: Callable[[], Any], seconds: float = 0.06) -> dict[str, Any]:
        """A row of one measurement, or of what stopped it."""
        error = ""
        for graph in (True, False) if self.graph else (False,):
            try:
                ms = median_ms(call, graph=graph, seconds=seconds) / len(self.xs)
                return {"kernel": kernel, "variant": variant, "ms": ms, "graph": graph}
            except Exception as broken:
                error = f"{type(broken).__name__}: {broken}"[:300]
        return {"kernel": kernel, "variant": variant, "error": error}

    def peers(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Peers, on the same inputs."""
        ready = [Structured(x, self.w13, self.w2, *moe.route(x, self.gate, TOP)) for x in self.xs]
        yield "structured, without routing", lambda: [one() for one in ready]
        if GPU:
            grouped = [Grouped(x, self.gate, self.w13, self.w2, TOP) for x in self.xs]
            yield "torch grouped_mm, products only", lambda: [one.products() for one in grouped]
            yield "torch grouped_mm, whole", lambda: [one.whole() for one in grouped]

    def compile_together(self, plan: Plan, firsts: tuple[Tile, ...], seconds: tuple[Tile, ...]) -> None:
        """Compiles several tiles at once; what fails says so again when it is timed."""
        jobs = [("first", tile) for tile in firsts] + [("second", tile) for tile in seconds]
        if GPU:
            with ThreadPoolExecutor(8) as pool:
                for done in [pool.submit(self.stage(stage, plan.rows, tile)) for stage, tile in jobs]:
                    done.exception()
            torch.cuda.synchronize()

    def checked(self, plan: Plan) -> object:
        """What :meth:`check` finds, or what stopped it."""
        try:
            return self.check(plan)
        except Exception as broken:
            return f"wrong: {type(broken).__name__}: {broken}"[:300]

    def check(self, plan: Plan) -> object:
        """Relative error against float64 with the chosen experts, after exact choice and equal repeats."""
        x = self.xs[0]
        found = self.run(x, plan)
        routing = moe_route.route(x, self.gate, TOP, True, plan.rows)
        logits = x.double() @ self.gate.double().t()
        chosen = routing.experts.long()
        if chosen.min() < 0 or (chosen.sort(1).values.diff(dim=1) <= 0).any():
            return "wrong: an expert twice, or none"
        lowest = logits.gather(1, chosen).min(1).values
        highest = logits.scatter(1, chosen, -torch.inf).max(1).values
        if (highest - lowest > 2.0**-7 * logits.abs().max(1).values).any():
            return "wrong: a better expert was left out"
        picked = torch.linspace(0, self.tokens - 1, min(CHECKED, self.tokens), device=DEVICE).long()
        weights = logits.gather(1, chosen).softmax(1)[picked]
        expected = moe.weighted(x[picked].double(), weights, chosen[picked], self.w13, self.w2)
        error = float((found[picked].double() - expected).norm() / expected.norm())
        if not error < LIMIT:
            return f"wrong: relative error {error:.2e}"
        poison(self, plan)
        for _ in range(REPEATS):
            if not torch.equal(self.run(x, plan), found):
                return "wrong: another result at a repeat"
        return error


def poison(layer: Layer, plan: Plan) -> None:
    """Leaves NaN and large numbers in the memory that the next call will get for its buffers."""
    places = moe_route.most_blocks(layer.tokens, TOP, EXPERTS, plan.rows) * plan.rows
    for shape in ((places, HIDDEN), (places, INTER), (places,), (layer.tokens, HIDDEN)):
        torch.full(shape, torch.nan, dtype=DTYPE, device=DEVICE)
        torch.full(shape[:1], 2**31 - 1, dtype=torch.int32, device=DEVICE)


def spelled(tiles: Plan | Tile) -> str:
    """Short for a table."""
    if isinstance(tiles, Plan):
        chained = "; chained" if tiles.chained else ""
        return f"rows {tiles.rows}; {spelled(tiles.first)}; {spelled(tiles.second)}{chained}"
    kinds = [name for name in ("joined", "swapped", "copied") if getattr(tiles, name)]
    kinds += [f"lasting {tiles.lasting}"] if tiles.lasting else []
    return " ".join([f"{tiles.columns}x{tiles.depth} w{tiles.warps} s{tiles.stages}", *kinds])
