"""Launches a whole mixture of experts on Triton: routing, two grouped products, sum."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
import triton
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from keyeloop.model_backend.kernels.jit import moe_products, moe_route
from keyeloop.model_backend.kernels.jit.moe_route import Routing

TOKENS_AT_ONCE = 16384
"""Tokens that are worked on together: bounds the memory of what lies between the products (0.9 GB at the 30B's)."""


@dataclass(frozen=True)
class Tile:
    """How a grouped product is cut: a block's rows times ``columns``, ``depth`` at a time.

    For the first product ``columns`` counts those of the gate; as many of the up projection come with them, in one
    product of twice the columns (``joined``) or in two. ``swapped`` multiplies weights by tokens instead of tokens by
    weights: weights are then the long side of the tensor cores' tiles, which is for few rows. Where ``lasting`` is not
    0, so many programs for each processor take tile after tile, and fetch for the next while they finish one; results
    that are ``copied`` leave by the copy engine meanwhile.
    """

    columns: int
    depth: int
    warps: int
    stages: int
    joined: bool = False
    swapped: bool = False
    lasting: int = 0
    copied: bool = False

    def programs(self, tiles: int, device: torch.device) -> int:
        """How many are launched for so many tiles."""
        return min(tiles, self.lasting * _processors(device)) if self.lasting else tiles


@dataclass(frozen=True)
class Plan:
    """Rows of a block, how both products are cut, and whether each launch starts while the one before ends."""

    rows: int
    first: Tile
    second: Tile
    chained: bool = False


PLANS = (
    (1 / 8, Plan(16, Tile(32, 128, 4, 5, swapped=True), Tile(64, 128, 4, 5, swapped=True), chained=True)),
    (8, Plan(16, Tile(64, 128, 4, 3), Tile(128, 128, 4, 3), chained=True)),
    (24, Plan(32, Tile(128, 128, 8, 3), Tile(128, 128, 4, 3), chained=True)),
    (96, Plan(64, Tile(64, 64, 4, 4, joined=True), Tile(128, 64, 4, 4), chained=True)),
    (256, Plan(128, Tile(128, 64, 8, 4, joined=True), Tile(256, 64, 8, 4, lasting=1))),
    (
        float("inf"),
        Plan(
            128,
            Tile(128, 64, 8, 4, joined=True, lasting=1, copied=True),
            Tile(256, 64, 8, 3, lasting=1, copied=True),
        ),
    ),
)
"""By tokens per expert, at most: the fastest of the tiles measured in bfloat16 on an H200."""
PLAIN = Plan(16, Tile(16, 32, 4, 2), Tile(32, 32, 4, 2))
"""For float32, which is for tests, and small experts."""


def plan_for(tokens: int, top: int, experts: int, inter: int, dtype: torch.dtype, device: torch.device) -> Plan:
    """Tiles for so many tokens."""
    if dtype == torch.float32 or inter < 64:
        return PLAIN
    share = tokens * top / experts
    plan = next(plan for most, plan in PLANS if share <= most)
    return plan if _chains(device) else replace(plan, chained=False)


def mixture_of_experts(
    x: Tensor, gate: Tensor, w13: Tensor, w2: Tensor, top: int, renormalise: bool, plan: Plan | None = None
) -> Tensor:
    """See :func:`keyeloop.model_backend.kernels.moe.mixture_of_experts`; ``plan`` overrides the choice of tiles."""
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    for begin in range(0, len(x), TOKENS_AT_ONCE):
        some = x[begin : begin + TOKENS_AT_ONCE]
        chosen = plan or plan_for(len(some), top, len(w13), w2.shape[2], x.dtype, x.device)
        routing = moe_route.route(some, gate, top, renormalise, chosen.rows, chosen.chained)
        active = first_product(some, w13, routing, chosen.first, chosen.chained)
        rows = second_product(active, w2, routing, chosen.second, chosen.chained)
        combine(rows, routing, out[begin : begin + TOKENS_AT_ONCE], chosen.chained)
    return out


def first_product(x: Tensor, w13: Tensor, routing: Routing, tile: Tile, chained: bool = False) -> Tensor:
    """``silu(x @ gate) * (x @ up)`` of all sorted places: [places, inter]."""
    (tokens, hidden), (experts, both, _) = x.shape, w13.shape
    inter, blocks, top = both // 2, len(routing.block_expert), routing.place.shape[1]
    active = torch.empty(blocks * routing.rows, inter, dtype=x.dtype, device=x.device)
    halves = w13.view(experts, 2, inter, hidden)
    weights = TensorDescriptor.from_tensor(halves, [1, 2 if tile.joined else 1, tile.columns, tile.depth])
    tiles = blocks * triton.cdiv(inter, tile.columns)
    moe_products.gate_up[(tile.programs(tiles, x.device),)](
        x, weights, routing.pairs, routing.block_expert, routing.used, _target(active, routing, tile),
        tokens, x.stride(0), hidden, inter, top, routing.rows, tile.columns, tile.depth, hidden % tile.depth == 0,
        tile.joined, tile.swapped, tile.lasting > 0, tile.copied, chained,
        num_warps=tile.warps, num_stages=tile.stages, **_early(chained),
    )  # fmt: skip
    return active


def second_product(active: Tensor, w2: Tensor, routing: Routing, tile: Tile, chained: bool = False) -> Tensor:
    """``active @ down`` of all sorted places: [places, hidden]."""
    (_, hidden, inter), blocks = w2.shape, len(routing.block_expert)
    rows = torch.empty(blocks * routing.rows, hidden, dtype=active.dtype, device=active.device)
    tiles = blocks * triton.cdiv(hidden, tile.columns)
    moe_products.down[(tile.programs(tiles, active.device),)](
        TensorDescriptor.from_tensor(active, [routing.rows, tile.depth]),
        TensorDescriptor.from_tensor(w2, [1, tile.columns, tile.depth]),
        routing.block_expert, routing.used, _target(rows, routing, tile), hidden, inter, routing.rows,
        tile.columns, tile.depth, tile.swapped, tile.lasting > 0, tile.copied, chained,
        num_warps=tile.warps, num_stages=tile.stages, **_early(chained),
    )  # fmt: skip
    return rows


def combine(rows: Tensor, routing: Routing, out: Tensor, chained: bool = False) -> None:
    """Writes each token's weighted sum over its experts' ``rows`` to ``out`` [T, hidden]."""
    (tokens, top), hidden = routing.place.shape, rows.shape[1]
    columns = min(2048 if tokens > 128 else 512, triton.next_power_of_2(hidden))
    moe_products.combine[(tokens, triton.cdiv(hidden, columns))](
        rows, routing.place, routing.weights, out, hidden, top, columns, chained, num_warps=max(1, columns // 256),
        **_early(chained),
    )  # fmt: skip


def _target(rows: Tensor, routing: Routing, tile: Tile) -> Any:
    return TensorDescriptor.from_tensor(rows, [routing.rows, tile.columns]) if tile.copied else rows


def _early(chained: bool) -> dict[str, bool]:
    return {"launch_pdl": True} if chained else {}


@cache
def _chains(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)


@cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2
