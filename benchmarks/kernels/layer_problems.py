"""Problems of sparse attention at full size, for ``layer_checks.py``: random tensors of requests of nasty lengths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from keyeloop.model_backend.kernels import ops
from keyeloop.model_backend.kernels.index_keys import IndexKeys

GPU = torch.device("cuda")
HEADS, KV_HEADS, HEAD_DIM, INDEX_HEADS, INDEX_DIM, TOPK = 32, 4, 128, 16, 64, 2048
Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """Requests of some lengths; the last ``queries`` tokens of each ask, then ``padding`` rows that ask nothing."""

    name: str
    lengths: tuple[int, ...]
    queries: tuple[int, ...]
    padding: int = 0
    index_heads: int = INDEX_HEADS
    heads: int = HEADS
    kv_heads: int = KV_HEADS
    head_dim: int = HEAD_DIM
    topk: int = TOPK


CASES = (
    Case("one token", (1,), (1,)),
    Case("topk - 1", (2047,), (7,)),
    Case("topk", (2048,), (16,)),
    Case("topk + 1", (2049,), (17,)),
    Case("mixed batch", (1, 2047, 2049, 40000), (1, 7, 16, 63)),
    Case("decode, padded", (5, 3000, 2048, 20001, 64, 9000), (1,) * 6, padding=10),
    Case("keye-tiny", (1000, 65, 300), (130, 65, 3), index_heads=4, heads=8, kv_heads=2, head_dim=32, topk=64),
    Case("long", (131073,), (24,)),
)


class Problem:
    """Random tensors of a case, paged: slots of a request are scattered over memory that holds NaN elsewhere."""

    def __init__(self, case: Case, mode: str, dtype: torch.dtype = torch.bfloat16) -> None:
        torch.manual_seed(sum(case.lengths) + len(case.lengths))
        total, width = sum(case.lengths), max(case.lengths) // 16 * 16 + 16
        slots = torch.randperm(total + 99, device=GPU)[:total]
        self.table = torch.full((len(case.lengths) + 1, width), int(slots[0]), dtype=torch.int32, device=GPU)
        rows, positions, at = [], [], 0
        for row, (length, asked) in enumerate(zip(case.lengths, case.queries, strict=True)):
            self.table[row + 1, :length] = slots[at : at + length]
            at += length
            rows += [row + 1] * asked
            positions += range(length - asked, length)
        rows, positions = rows + [0] * case.padding, positions + [-1] * case.padding
        self.rows, self.positions = (torch.tensor(x, dtype=torch.int32, device=GPU) for x in (rows, positions))
        tokens, self.topk = len(rows), case.topk
        self.index_k = IndexKeys.zeros(total + 99, INDEX_DIM, mode, dtype, GPU)  # type: ignore[arg-type]
        ops.store_index_keys(self.index_k, torch.randn(total, INDEX_DIM, device=GPU, dtype=dtype), slots)
        heads = torch.randn(tokens, case.index_heads, INDEX_DIM, device=GPU, dtype=dtype)
        gates = torch.randn(tokens, case.index_heads, device=GPU) * INDEX_DIM**-0.5
        self.index_q, self.weights = ops.index_queries(heads, gates, mode)  # type: ignore[arg-type]
        self.q = torch.randn(tokens, case.heads, case.head_dim, device=GPU, dtype=dtype)
        self.k, self.v = (
            torch.full((total + 99, case.kv_heads, case.head_dim), torch.nan, device=GPU, dtype=dtype) for _ in "kv"
        )
        for cache in (self.k, self.v):
            cache[slots] = torch.randn(total, case.kv_heads, case.head_dim, device=GPU, dtype=dtype)
        self.scale = case.head_dim**-0.5

    def select(self, **how: Any) -> Tensor:
        """Chosen places."""
        return ops.select(
            self.index_q, self.weights, self.index_k, self.table, self.rows, self.positions, self.topk, **how
        )

    def attend(self, chosen: Tensor, **how: Any) -> Tensor:
        """Attention over chosen places."""
        return ops.sparse_attention(self.q, self.k, self.v, self.table, self.rows, chosen, self.scale, **how)

    def step(self) -> tuple[Tensor, Tensor]:
        """Both, as a layer does."""
        chosen = self.select()
        return chosen, self.attend(chosen)

    def exact_scores(self, query: int) -> tuple[Tensor, Tensor]:
        """Scores of one query in float64, and the bound of their error under the kernel's arithmetic."""
        slots = self.table[self.rows[query], : int(self.positions[query]) + 1].long()
        fp8 = self.index_k.scales is not None
        keys = self.index_k.values.view(torch.uint8)[slots].view(self.index_k.values.dtype).double()
        asked, gates = self.index_q[query].double(), self.weights[query].double()
        size = (asked.abs() @ keys.abs().t() * gates.abs().unsqueeze(1)).sum(0) * (2.0**-12 if fp8 else 2.0**-17)
        found = ((asked @ keys.t()).relu() * gates.unsqueeze(1)).sum(0)
        if self.index_k.scales is not None:
            found, size = found * self.index_k.scales[slots], size * self.index_k.scales[slots]
        return found, size
