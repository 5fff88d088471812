"""Mixture of experts: softmax router, the best ``k`` renormalised, SwiGLU experts stored as (expert, in, out)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from keyeloop.model_backend.keye.config import KeyeConfig

TOKENS_AT_ONCE = 4096
"""Most tokens whose expert inputs are gathered together; bounds memory, never changes a result."""


class Experts(nn.Module):
    """Weights of all experts of one layer, gate first and up last in ``gate_up_proj`` [E, hidden, 2 x ffn]."""

    def __init__(self, config: KeyeConfig) -> None:
        super().__init__()
        experts, hidden, ffn = config.num_experts, config.hidden_size, config.moe_intermediate_size
        self.gate_up_proj = nn.Parameter(torch.empty(experts, hidden, 2 * ffn))
        self.down_proj = nn.Parameter(torch.empty(experts, ffn, hidden))
        nn.init.normal_(self.gate_up_proj, std=hidden**-0.5)
        nn.init.normal_(self.down_proj, std=ffn**-0.5)

    def one(self, x: Tensor, expert: int) -> Tensor:
        """Expert ``expert`` on ``x`` [N, hidden]."""
        gate, up = (x @ self.gate_up_proj[expert]).chunk(2, -1)
        return (F.silu(gate) * up) @ self.down_proj[expert]


class SparseMoe(nn.Module):
    """Feed-forward block of a decoder layer. Source: Qwen3MoeSparseMoeBlock, which Keye uses unchanged."""

    def __init__(self, config: KeyeConfig) -> None:
        super().__init__()
        self.top = config.num_experts_per_tok
        self.renormalise = config.norm_topk_prob
        self.gate = nn.Linear(config.hidden_size, config.num_experts, bias=False)
        self.experts = Experts(config)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [T, hidden]; only the chosen experts' weights are read."""
        if x.shape[0] == 1:
            return self._single(x)
        pieces = [self._grouped(piece) for piece in torch.split(x, TOKENS_AT_ONCE)]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weights [T, k] (``x``'s type) and expert numbers [T, k]; probabilities in float32 or wider."""
        exact = torch.promote_types(x.dtype, torch.float32)
        weights, chosen = F.softmax(self.gate(x), -1, dtype=exact).topk(self.top, -1)
        if self.renormalise:
            weights = weights / weights.sum(-1, keepdim=True)
        return weights.to(x.dtype), chosen

    def _single(self, x: Tensor) -> Tensor:
        weights, chosen = self.route(x)
        outputs = torch.cat([self.experts.one(x, expert) for expert in chosen[0].tolist()])
        return weights @ outputs

    def _grouped(self, x: Tensor) -> Tensor:
        weights, chosen = self.route(x)
        slots, order = chosen.flatten().sort(stable=True)
        counts = torch.bincount(slots, minlength=self.gate.out_features).tolist()
        inputs = x.index_select(0, order // self.top)
        outputs = [self.experts.one(rows, e) for e, rows in enumerate(torch.split(inputs, counts)) if rows.shape[0]]
        unsorted = torch.empty_like(order).scatter_(0, order, torch.arange(order.numel(), device=x.device))
        by_token = torch.cat(outputs).index_select(0, unsorted).view(x.shape[0], self.top, -1)
        return torch.bmm(weights.unsqueeze(1), by_token).squeeze(1)
