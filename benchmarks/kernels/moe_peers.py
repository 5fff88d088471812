"""What the mixture of experts is measured beside: a fused one of SGLang's structure in Triton, and torch's products.

The structure: tokens sorted by expert and padded to blocks; one kernel for both products, with pointers, masked rows
and a grouped order of tiles; activation and sum as kernels of their own, results of the products in memory between
them. Tiles are those that SGLang 0.5 ships for this layer on an H200 with Triton 3.6. For measurement only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

# tokens: rows, columns, depth, tiles of one group, warps, stages
SHIPPED = {
    1: (16, 64, 64, 1, 4, 5), 2: (16, 64, 64, 1, 4, 4), 4: (16, 64, 128, 16, 4, 2), 8: (16, 64, 128, 1, 4, 3),
    16: (16, 64, 256, 1, 4, 2), 32: (16, 64, 128, 16, 4, 2), 64: (16, 256, 128, 1, 8, 2),
    128: (16, 128, 128, 1, 4, 2), 256: (32, 256, 128, 16, 4, 2), 512: (64, 128, 64, 1, 4, 3),
    1024: (128, 256, 64, 16, 8, 4), 2048: (128, 256, 64, 1, 8, 4), 4096: (128, 256, 64, 16, 8, 4),
}  # fmt: skip


@triton.jit
def _product(
    a, b, c, weights, sorted_pairs, block_expert, padded, columns, depth, length, pairs,
    TOP: tl.constexpr, WEIGHTED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    GROUP: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    wide, high = tl.cdiv(columns, COLUMNS), tl.cdiv(length, ROWS)
    group = program // (GROUP * wide)
    size = tl.minimum(high - group * GROUP, GROUP)
    block = group * GROUP + program % (GROUP * wide) % size
    column = program % (GROUP * wide) // size * COLUMNS + tl.arange(0, COLUMNS)
    if block * ROWS >= tl.load(padded):
        return
    pair = tl.load(sorted_pairs + block * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    there = pair < pairs
    k = tl.arange(0, DEPTH)
    left = a + pair[:, None] // TOP * depth + k[None, :]
    right = b + tl.load(block_expert + block).to(tl.int64) * columns * depth
    right += (column % columns)[None, :] * depth + k[:, None]
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for begin in range(0, depth, DEPTH):
        if EVEN:
            some = tl.load(left, mask=there[:, None], other=0.0)
            total += tl.dot(some, tl.load(right))
        else:
            inside = k < depth - begin
            some = tl.load(left, mask=there[:, None] & inside[None, :], other=0.0)
            total += tl.dot(some, tl.load(right, mask=inside[:, None], other=0.0))
        left += DEPTH
        right += DEPTH
    if WEIGHTED:
        total *= tl.load(weights + pair, mask=there, other=0.0)[:, None]
    tl.store(
        c + pair[:, None] * columns + column[None, :], total.to(c.dtype.element_ty),
        mask=there[:, None] & (column < columns)[None, :],
    )  # fmt: skip


@triton.jit
def _activate(both, out, inter, BLOCK: tl.constexpr):
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside = column < inter
    gate = tl.load(both + row * 2 * inter + column, mask=inside).to(tl.float32)
    up = tl.load(both + row * 2 * inter + inter + column, mask=inside).to(tl.float32)
    tl.store(out + row * inter + column, (gate / (1 + tl.exp(-gate)) * up).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _sum(rows, out, hidden, TOP: tl.constexpr, BLOCK: tl.constexpr):
    token, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for number in tl.static_range(TOP):
        total += tl.load(rows + (token * TOP + number) * hidden + column, mask=column < hidden).to(tl.float32)
    tl.store(out + token * hidden + column, total.to(out.dtype.element_ty), mask=column < hidden)


@dataclass
class Structured:
    """Products, activation and sum for tokens already routed and aligned; a call runs them."""

    x: Tensor
    w13: Tensor
    w2: Tensor
    weights: Tensor
    chosen: Tensor

    def __post_init__(self) -> None:
        experts, pairs = len(self.w13), self.chosen.numel()
        self.tile = SHIPPED[min(SHIPPED, key=lambda tokens: abs(tokens - len(self.x)))]
        rows, device = self.tile[0], self.x.device
        by_expert, order = self.chosen.flatten().long().sort(stable=True)
        counts = torch.bincount(by_expert, minlength=experts)
        blocks = (counts + rows - 1) // rows
        first = blocks.cumsum(0) - blocks
        rank = torch.arange(pairs, device=device) - (counts.cumsum(0) - counts)[by_expert]
        length = min(pairs + experts * (rows - 1), pairs * rows)
        self.sorted = torch.full((length + rows,), pairs, dtype=torch.int32, device=device)
        self.sorted[first[by_expert] * rows + rank] = order.int()
        self.block_expert = torch.zeros(length // rows + 1, dtype=torch.int32, device=device)
        owners = torch.repeat_interleave(torch.arange(experts, device=device), blocks)
        self.block_expert[: len(owners)] = owners.int()
        self.padded = (blocks.sum() * rows).int().reshape(1)
        self.length, self.pairs = length, pairs

    def __call__(self) -> Tensor:
        (tokens, hidden), inter, top = self.x.shape, self.w2.shape[2], self.chosen.shape[1]
        both = self.x.new_empty(self.pairs, 2 * inter)
        active, rows, out = (
            self.x.new_empty(self.pairs, inter),
            self.x.new_empty(self.pairs, hidden),
            torch.empty_like(self.x),
        )
        self._multiply(self.x, self.w13, both, top, False)
        _activate[(self.pairs,)](both, active, inter, triton.next_power_of_2(inter), num_warps=4)
        self._multiply(active, self.w2, rows, 1, True)
        block = min(1024, triton.next_power_of_2(hidden))
        _sum[(tokens, triton.cdiv(hidden, block))](rows, out, hidden, top, block, num_warps=4)
        return out

    def _multiply(self, a: Tensor, b: Tensor, c: Tensor, top: int, weighted: bool) -> None:
        rows, columns, depth, group, warps, stages = self.tile
        grid = (triton.cdiv(self.length, rows) * triton.cdiv(b.shape[1], columns),)
        _product[grid](
            a, b, c, self.weights, self.sorted, self.block_expert, self.padded, b.shape[1], b.shape[2], self.length,
            self.pairs, top, weighted, rows, columns, depth, group, b.shape[2] % depth == 0, num_warps=warps,
            num_stages=stages,
        )  # fmt: skip


@dataclass
class Grouped:
    """torch's grouped products on rows already sorted; :meth:`whole` routes, sorts, activates and sums in torch too."""

    x: Tensor
    gate: Tensor
    w13: Tensor
    w2: Tensor
    top: int

    def __post_init__(self) -> None:
        self.inputs, self.ends, _, _ = self._sort()
        self.active = self.x.new_zeros(len(self.inputs), self.w2.shape[2]).normal_()

    def products(self) -> Tensor:
        """Both products, nothing else."""
        torch._grouped_mm(self.inputs, self.w13.transpose(1, 2), offs=self.ends)
        return torch._grouped_mm(self.active, self.w2.transpose(1, 2), offs=self.ends)

    def whole(self) -> Tensor:
        """The layer."""
        inputs, ends, order, weights = self._sort()
        gate, up = torch._grouped_mm(inputs, self.w13.transpose(1, 2), offs=ends).chunk(2, -1)
        rows = torch._grouped_mm(F.silu(gate) * up, self.w2.transpose(1, 2), offs=ends)
        back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        by_token = rows.index_select(0, back).view(len(self.x), self.top, -1)
        return (weights.unsqueeze(-1) * by_token).sum(1).to(self.x.dtype)

    def _sort(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        weights, chosen = F.linear(self.x, self.gate).float().softmax(-1).topk(self.top, -1)
        weights = weights / weights.sum(-1, keepdim=True)
        by_expert, order = chosen.flatten().sort(stable=True)
        numbers = torch.arange(len(self.w13), device=self.x.device)
        ends = torch.searchsorted(by_expert, numbers, right=True).int()
        return self.x.index_select(0, order // self.top), ends, order, weights
