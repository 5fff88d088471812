"""The mixture of experts: one token, many tokens and a plain loop agree; only chosen experts are read."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from keyeloop.model_backend.keye import moe
from keyeloop.model_backend.keye.moe import SparseMoe
from tests.model_backend.keye_models import SMALL


def block(*, renormalise: bool = True, experts: int = 5) -> SparseMoe:
    torch.manual_seed(0)
    return SparseMoe(replace(SMALL, norm_topk_prob=renormalise, num_experts=experts)).double()


def looped(layer: SparseMoe, x: Tensor) -> Tensor:
    """Experts as (out, in) matrices, the layout of per-expert checkpoints."""
    rows = []
    for token in x:
        shares = torch.softmax(layer.gate.weight @ token, 0)
        chosen = sorted(range(len(shares)), key=lambda e: -float(shares[e]))[: layer.top]
        total = sum(float(shares[e]) for e in chosen) if layer.renormalise else 1.0
        out = torch.zeros_like(token)
        for e in chosen:
            fused = layer.experts.gate_up_proj[e].t()
            gate, up = fused[: len(fused) // 2], fused[len(fused) // 2 :]
            hidden = F.silu(F.linear(token, gate)) * F.linear(token, up)
            out += shares[e] / total * F.linear(hidden, layer.experts.down_proj[e].t())
        rows.append(out)
    return torch.stack(rows)


@pytest.mark.parametrize("renormalise", [True, False])
def test_equals_a_loop_over_tokens_and_experts(renormalise: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = block(renormalise=renormalise)
    x = torch.randn(17, SMALL.hidden_size, dtype=torch.float64)
    with torch.no_grad():
        expected = looped(layer, x)
        assert torch.allclose(layer(x), expected, atol=1e-12)
        singles = torch.cat([layer(x[t : t + 1]) for t in range(17)])
        assert torch.allclose(singles, expected, atol=1e-12)
        monkeypatch.setattr(moe, "TOKENS_AT_ONCE", 4)
        assert torch.allclose(layer(x), expected, atol=1e-12)


def test_unchosen_experts_are_never_read() -> None:
    layer = block()
    x = torch.randn(1, SMALL.hidden_size, dtype=torch.float64)
    with torch.no_grad():
        expected = layer(x)
        chosen = layer.route(x)[1][0].tolist()
        for expert in set(range(5)) - set(chosen):
            layer.experts.gate_up_proj[expert] = torch.nan
            layer.experts.down_proj[expert] = torch.nan
        assert torch.equal(layer(x), expected)
        assert torch.allclose(layer(x.expand(3, -1)), expected.expand(3, -1), atol=1e-12)


def test_router_shares_sum_to_one_in_bfloat16_too() -> None:
    layer = block().bfloat16()
    weights, chosen = layer.route(torch.randn(9, SMALL.hidden_size).bfloat16())
    assert weights.dtype == torch.bfloat16 and (weights.float().sum(1) - 1).abs().max() < 0.01
    assert all(len(set(row)) == 2 for row in chosen.tolist())


def test_gradients_reach_router_and_chosen_experts() -> None:
    layer = block()
    layer(torch.randn(6, SMALL.hidden_size, dtype=torch.float64)).square().sum().backward()
    for parameter in layer.parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0
