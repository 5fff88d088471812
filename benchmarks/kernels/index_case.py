"""Requests whose tokens are to be selected: random keys in shuffled pages, queries of their last tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from timing import DEVICE
from torch import Tensor

from keyeloop.model_backend.kernels import ops
from keyeloop.model_backend.kernels.index_keys import IndexKeys
from keyeloop.model_backend.keye.indexer import IndexerMode

HEADS, DIM, TOPK, PAGE = 16, 64, 2048, 64


@dataclass(frozen=True)
class IndexCase:
    """Prepared queries, stored keys, and where they stand."""

    q: Tensor
    weights: Tensor
    index_k: IndexKeys
    table: Tensor
    rows: Tensor
    positions: Tensor
    context: int

    @classmethod
    def of(cls, mode: IndexerMode, context: int, queries: int, batch: int = 1, shared: bool = False) -> IndexCase:
        """``batch`` requests of ``context`` tokens, whose last ``queries`` ask; ``shared`` has them read one memory."""
        torch.manual_seed(0)
        owners = 1 if shared else batch
        total, tokens = owners * context, batch * queries
        page = torch.randperm(total // PAGE, device=DEVICE).view(owners, -1, 1) * PAGE
        table = (page + torch.arange(PAGE, device=DEVICE)).view(owners, context).to(torch.int32).expand(batch, context)
        index_k = IndexKeys.zeros(total, DIM, mode, torch.bfloat16, DEVICE)
        keys = torch.randn(total, DIM, dtype=torch.bfloat16, device=DEVICE)
        ops.store_index_keys(index_k, keys, torch.arange(total, device=DEVICE))
        heads = torch.randn(tokens, HEADS, DIM, dtype=torch.bfloat16, device=DEVICE)
        q, weights = ops.index_queries(heads, torch.randn(tokens, HEADS, device=DEVICE) * DIM**-0.5, mode)
        rows = torch.arange(batch, dtype=torch.int32, device=DEVICE).repeat_interleave(queries)
        positions = torch.arange(context - queries, context, dtype=torch.int32, device=DEVICE).repeat(batch)
        return cls(q, weights, index_k, table.contiguous(), rows, positions, context)

    @property
    def given(self) -> tuple[Any, ...]:
        """What scoring and selection take, in their order."""
        return self.q, self.weights, self.index_k, self.table, self.rows, self.positions, TOPK

    def exact_scores(self, query: int) -> tuple[Tensor, Tensor]:
        """Scores of one query in float64, and the bound of their error in the kernel's arithmetic."""
        slots = self.table[self.rows[query], : int(self.positions[query]) + 1].long()
        raw = self.index_k.values.view(torch.uint8)[slots].view(self.index_k.values.dtype)
        keys, asked, gates = raw.double(), self.q[query].double(), self.weights[query].double()
        scaled = self.index_k.scales is not None
        bound = (asked.abs() @ keys.abs().t() * gates.abs().unsqueeze(1)).sum(0) * (2.0**-12 if scaled else 2.0**-17)
        found = ((asked @ keys.t()).relu() * gates.unsqueeze(1)).sum(0)
        if self.index_k.scales is not None:
            found, bound = found * self.index_k.scales[slots], bound * self.index_k.scales[slots]
        return found, bound
