"""The mixture of experts of the training network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.keye_tiny.shape import TinyShape


class Experts(nn.Module):
    """Fused experts in the checkpoint's layout [E, in, out]; gate half first."""

    def __init__(self, shape: TinyShape) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.empty(shape.experts, shape.hidden, 2 * shape.expert_width))
        self.down_proj = nn.Parameter(torch.empty(shape.experts, shape.expert_width, shape.hidden))


class MixtureOfExperts(nn.Module):
    """Top-k experts, on a GPU computed densely as two wide products: at this size that beats sorting."""

    def __init__(self, shape: TinyShape) -> None:
        super().__init__()
        self.shape = shape
        self.gate = nn.Linear(shape.hidden, shape.experts, bias=False)
        self.experts = Experts(shape)

    def forward(self, x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Output like ``x`` and the load-balancing loss (1 when even) over the ``valid`` [B, T] tokens."""
        shape = self.shape
        with torch.autocast(x.device.type, enabled=False):
            probs = F.linear(x.float(), self.gate.weight.float()).softmax(-1)
        numbers = torch.arange(shape.experts, device=x.device)
        used = torch.zeros_like(probs, dtype=torch.bool)
        rest = probs.detach()
        for _ in range(shape.experts_per_token):
            best = numbers == rest.argmax(-1, keepdim=True)
            used = used | best
            rest = rest.masked_fill(best, -1.0)
        weights = probs * used
        weights = weights / weights.sum(-1, keepdim=True)
        out = self._routed(x, weights, used) if x.device.type == "cpu" else self._wide(x, weights)
        count = valid.sum().clamp_min(1)
        mask = valid.unsqueeze(-1)
        load = (used & mask).float().sum((0, 1)) / (count * shape.experts_per_token)
        chance = (probs * mask).sum((0, 1)) / count
        return out, shape.experts * (load * chance).sum()

    def _wide(self, x: Tensor, weights: Tensor) -> Tensor:
        """All experts on all tokens, those not chosen with weight 0."""
        shape = self.shape
        wide_in = self.experts.gate_up_proj.transpose(0, 1).flatten(1)
        wide_out = self.experts.down_proj.flatten(0, 1)
        wide = torch.matmul(x, wide_in)
        hidden = wide.view(*wide.shape[:-1], shape.experts, 2, shape.expert_width)
        inner = F.silu(hidden[..., 0, :]) * hidden[..., 1, :] * weights.unsqueeze(-1).to(hidden.dtype)
        return torch.matmul(inner.flatten(-2), wide_out)

    def _routed(self, x: Tensor, weights: Tensor, used: Tensor) -> Tensor:
        """Every expert on its own tokens: on a CPU, where launching costs nothing, a quarter of the work."""
        flat, flat_weights, flat_used = x.flatten(0, -2), weights.flatten(0, -2), used.flatten(0, -2)
        out: Tensor | None = None
        for number in range(self.shape.experts):
            rows = flat_used[:, number].nonzero().squeeze(1)
            hidden = flat[rows] @ self.experts.gate_up_proj[number]
            gate, up = hidden.chunk(2, dim=-1)
            inner = F.silu(gate) * up * flat_weights[rows, number, None].to(hidden.dtype)
            found = inner @ self.experts.down_proj[number]
            if out is None:
                out = found.new_zeros(flat.shape)
            out = out.index_add(0, rows, found)
        assert out is not None
        return out.view(x.shape)
