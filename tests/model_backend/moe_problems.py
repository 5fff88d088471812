"""Small mixtures of experts for the tests of the kernels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from keyeloop.model_backend.kernels import moe, ops


@dataclass
class Mixture:
    """A layer's weights and its input."""

    x: Tensor
    gate: Tensor
    w13: Tensor
    w2: Tensor
    top: int
    renormalise: bool = True

    def run(self, kernels: ops.Kernels = "reference") -> Tensor:
        """The layer."""
        return moe.mixture_of_experts(
            self.x, self.gate, self.w13, self.w2, self.top, renormalise=self.renormalise, kernels=kernels
        )

    def looped(self) -> Tensor:
        """Token by token and expert by expert, in float64, with experts by a plain sort of rounded logits."""
        out = torch.zeros_like(self.x, dtype=torch.float64)
        for token, logits in enumerate(F.linear(self.x, self.gate).double()):
            order = sorted(range(len(logits)), key=lambda e: -float(logits[e]))[: self.top]
            weights = torch.softmax(logits, 0)[order]
            if self.renormalise:
                weights = weights / weights.sum()
            for weight, expert in zip(weights, order, strict=True):
                gate, up = (self.w13[expert].double() @ self.x[token].double()).chunk(2)
                out[token] += weight * (self.w2[expert].double() @ (F.silu(gate) * up))
        return out


def mixture(
    tokens: int,
    *,
    experts: int = 8,
    top: int = 2,
    hidden: int = 32,
    inter: int = 16,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    renormalise: bool = True,
    whole_numbers: bool = False,
) -> Mixture:
    """Random; with ``whole_numbers`` the router's logits are small integers: exact in any order of sums, many equal."""
    random = torch.Generator().manual_seed(tokens)

    def draw(*shape: int) -> Tensor:
        return (torch.randn(shape, generator=random) / math.sqrt(shape[-1])).to(device, dtype)

    x, gate = draw(tokens, hidden) * hidden**0.5, draw(experts, hidden)
    if whole_numbers:
        x, gate = x.round(), torch.randint(-1, 2, gate.shape, generator=random).to(device, dtype)
    return Mixture(x, gate, draw(experts, 2 * inter, hidden), draw(experts, hidden, inter), top, renormalise)
