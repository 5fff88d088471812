"""Queries with given choices in paged memory, for timing attention alone: how much neighbours share is a parameter."""

from __future__ import annotations

import torch
from timing import DEVICE
from torch import Tensor

from keyeloop.model_backend.kernels import reference

SMALL = DEVICE.type != "cuda"
"""Tiny shapes, for trying a module in Triton's interpreter."""
TYPE = torch.float16 if SMALL else torch.bfloat16
HEADS, KV_HEADS, DIM = (8, 2, 32) if SMALL else (32, 4, 128)
TOPK = 64 if SMALL else 2048
PAGE, ALIKE = 64, 16
SMALL_CONTEXT = 2048
CLOSE = 4e-3
"""Largest relative error, in the norm, of attention in bfloat16."""


class Case:
    """``requests`` of ``context`` tokens each, in shuffled pages; the last ``queries`` tokens of each ask."""

    def __init__(self, requests: int, context: int, queries: int) -> None:
        torch.manual_seed(0)
        context, total = (SMALL_CONTEXT if SMALL else context), requests * (SMALL_CONTEXT if SMALL else context)
        pages = torch.randperm(total // PAGE, device=DEVICE).view(requests, -1, 1) * PAGE
        table = (pages + torch.arange(PAGE, device=DEVICE)).view(requests, context)
        self.context, self.requests, self.queries = context, requests, queries
        self.table = table.to(torch.int32)
        self.rows = torch.arange(requests, dtype=torch.int32, device=DEVICE).repeat_interleave(queries)
        self.k = torch.empty(total, KV_HEADS, DIM, dtype=TYPE, device=DEVICE).normal_()
        self.v = torch.empty_like(self.k).normal_()
        self.q = torch.randn(requests * queries, HEADS, DIM, device=DEVICE).to(TYPE)
        self.scale = DIM**-0.5

    def choices(self, shared: float) -> Tensor:
        """[T, TOPK] random places, ascending: of each, every 16 adjacent queries have this part in common."""
        tokens = len(self.rows)
        width = (self.context - self.queries) // TOPK
        base, own = (
            torch.randint(width, (tokens // some, 1, TOPK), device=DEVICE, dtype=torch.int32).expand(-1, some, -1)
            for some in (min(ALIKE, tokens), 1)
        )
        common = torch.rand(base.shape[0], 1, TOPK, device=DEVICE) < shared
        place = torch.where(common.expand_as(base).reshape(tokens, TOPK), base.reshape(tokens, TOPK), own.squeeze(1))
        return (place + torch.arange(TOPK, device=DEVICE, dtype=torch.int32) * width).contiguous()

    def error(self, found: Tensor, chosen: Tensor, every: int) -> float | str:
        """Relative error of some queries against float64; ``wrong`` where it is too large."""
        some = slice(None, None, every)
        exact = reference.sparse_attention(
            self.q[some].double(), self.k, self.v, self.table, self.rows[some], chosen[some], self.scale
        )
        error = float((found[some].double() - exact).norm() / exact.norm())
        return error if error < CLOSE else f"wrong: relative error {error:.3g}"

    def products(self) -> float:
        """Operations that attention needs: two products of every query head with every chosen key."""
        return 4.0 * len(self.rows) * TOPK * HEADS * DIM

    def bytes_once(self, keys: int) -> float:
        """Bytes that must move at the least: ``keys`` distinct keys and values, queries, choices and results."""
        row = self.k.itemsize * DIM
        return 2.0 * row * KV_HEADS * keys + len(self.rows) * (2.0 * row * HEADS + 4 * TOPK)
