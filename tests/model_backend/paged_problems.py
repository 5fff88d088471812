"""Small paged memories for the tests of the kernels: scattered slots, NaN wherever no token lives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from keyeloop.model_backend.kernels import ops
from keyeloop.model_backend.kernels.index_keys import IndexKeys
from keyeloop.model_backend.keye.indexer import IndexerMode

SPARE = 13


@dataclass
class Problem:
    """Requests in paged memory, and queries of some of their tokens."""

    index_q: Tensor
    weights: Tensor
    index_k: IndexKeys
    q: Tensor
    k: Tensor
    v: Tensor
    table: Tensor
    rows: Tensor
    positions: Tensor
    topk: int
    lengths: tuple[int, ...]

    def select(self, kernels: ops.Kernels = "reference", *, one_each: bool | None = None) -> Tensor:
        """Chosen places."""
        return ops.select(
            self.index_q, self.weights, self.index_k, self.table, self.rows, self.positions, self.topk,
            one_each=one_each, kernels=kernels,
        )  # fmt: skip

    def attend(self, chosen: Tensor, kernels: ops.Kernels = "reference") -> Tensor:
        """Attention over chosen places."""
        scale = self.q.shape[-1] ** -0.5
        return ops.sparse_attention(self.q, self.k, self.v, self.table, self.rows, chosen, scale, kernels=kernels)

    def scores(self, query: int) -> Tensor:
        """Scores of one query in float64, of what memory holds."""
        slots = self.table[self.rows[query], : int(self.positions[query]) + 1].long()
        keys = self.index_k.values.view(torch.uint8)[slots].view(self.index_k.values.dtype).double()
        if self.index_k.scales is not None:
            keys = keys * self.index_k.scales[slots].double().unsqueeze(1)
        dots = (self.index_q[query].double() @ keys.t()).relu()
        return (dots * self.weights[query].double().unsqueeze(1)).sum(0)

    def by_sorting(self) -> list[list[int]]:
        """What must be chosen: best score first, ties to the lowest place."""
        found = []
        for query in range(len(self.rows)):
            scores = self.scores(query).tolist()
            best = sorted(sorted(range(len(scores)), key=lambda place: (-scores[place], place))[: self.topk])
            found.append(best + [-1] * (self.topk - len(best)))
        return found

    def by_softmax(self, chosen: Tensor) -> Tensor:
        """Attention in float64, one query and head at a time."""
        tokens, heads, dim = self.q.shape
        group, out = (
            heads // self.k.shape[1],
            torch.zeros(tokens, heads, dim, dtype=torch.float64, device=self.q.device),
        )
        for query in range(tokens):
            places = chosen[query][chosen[query] >= 0].long()
            slots = self.table[self.rows[query], places].long()
            for head in range(heads):
                keys, values = self.k[slots, head // group].double(), self.v[slots, head // group].double()
                weights = torch.softmax(keys @ self.q[query, head].double() * dim**-0.5, 0)
                out[query, head] = weights @ values
        return out


def problem(
    mode: IndexerMode,
    lengths: tuple[int, ...],
    asked: tuple[int, ...],
    *,
    topk: int = 8,
    padding: int = 0,
    index_heads: int = 4,
    index_dim: int = 64,
    shape: tuple[int, int, int] = (8, 2, 32),
    dtype: torch.dtype = torch.float32,
    whole_numbers: bool = False,
    device: str = "cpu",
    seed: int = 0,
) -> Problem:
    """The last ``asked`` tokens of each request ask; ``padding`` rows ask nothing. ``shape``: heads, kv heads, dim.

    ``whole_numbers`` makes every index score a small whole number: exact in any arithmetic, with many ties.
    """
    random = torch.Generator().manual_seed(seed)
    total, tokens = sum(lengths), sum(asked) + padding
    slots = torch.randperm(total + SPARE, generator=random)[:total].to(device)

    def values(*size: int) -> Tensor:
        if whole_numbers:
            return torch.randint(-1, 2, size, generator=random).to(device, dtype)
        return torch.randn(*size, generator=random).to(device, dtype)

    table = torch.full((len(lengths) + 1, max(lengths) + 5), int(slots[0]), dtype=torch.int32, device=device)
    rows: list[int] = []
    positions: list[int] = []
    at = 0
    for row, (length, count) in enumerate(zip(lengths, asked, strict=True), 1):
        table[row, :length] = slots[at : at + length]
        at += length
        rows += [row] * count
        positions += range(length - count, length)
    index_k = IndexKeys.zeros(total + SPARE, index_dim, mode, dtype, device)
    index_k.values.view(torch.uint8).fill_(0x7F) if mode == "fp8" else index_k.values.fill_(torch.nan)
    ops.store_index_keys(index_k, values(total, index_dim), slots, kernels="reference")
    gates = values(tokens, index_heads).float()
    index_q, weights = ops.index_queries(values(tokens, index_heads, index_dim), gates, mode, kernels="reference")
    heads, kv_heads, dim = shape
    caches = []
    for _ in ("k", "v"):
        cache = torch.full((total + SPARE, kv_heads, dim), torch.nan, device=device, dtype=dtype)
        cache[slots] = torch.randn(total, kv_heads, dim, generator=random).to(device, dtype)
        caches.append(cache)
    return Problem(
        index_q, weights, index_k, torch.randn(tokens, heads, dim, generator=random).to(device, dtype),
        caches[0], caches[1], table,
        torch.tensor(rows + [0] * padding, dtype=torch.int32, device=device),
        torch.tensor(positions + [-1] * padding, dtype=torch.int32, device=device), topk, lengths,
    )  # fmt: skip


def bits(x: Tensor) -> Tensor:
    """Bytes, to compare what has no comparison."""
    return x.contiguous().view(torch.uint8)
