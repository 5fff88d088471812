"""The mixture of experts in torch: against a loop in float64, and against the model's own layer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from keyeloop.model_backend.kernels import moe, ops
from keyeloop.model_backend.keye.moe import SparseMoe
from keyeloop.runtime.errors import ConfigError
from tests.model_backend.keye_models import SMALL
from tests.model_backend.moe_problems import mixture


@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.parametrize(("tokens", "experts", "top"), [(1, 8, 2), (9, 5, 5), (40, 3, 1), (33, 16, 4)])
def test_equals_a_loop_in_float64(tokens: int, experts: int, top: int, renormalise: bool) -> None:
    task = mixture(tokens, experts=experts, top=top, renormalise=renormalise)
    torch.testing.assert_close(task.run().double(), task.looped(), rtol=1e-5, atol=1e-6)


def test_ties_go_to_the_lowest_expert() -> None:
    task = mixture(40, experts=16, top=3, whole_numbers=True)
    weights, chosen = moe.route(task.x, task.gate, 3)
    logits = (task.x @ task.gate.t()).tolist()
    assert any(len(set(row)) < len(row) for row in logits)
    assert chosen.tolist() == [sorted(range(16), key=lambda e: (-row[e], e))[:3] for row in logits]
    task.gate.zero_()
    assert moe.route(task.x, task.gate, 3)[1].tolist() == [[0, 1, 2]] * 40
    assert torch.allclose(weights.sum(1), torch.ones(40))


def test_a_bad_token_harms_no_other() -> None:
    task = mixture(6)
    expected = task.run()
    task.x[2] = torch.nan
    found = task.run()
    assert found[2].isnan().all()
    assert torch.equal(found[[0, 1, 3, 4, 5]], expected[[0, 1, 3, 4, 5]])
    assert moe.route(task.x, task.gate, 2)[1][2].tolist() == [0, 1]


def test_unchosen_experts_are_never_read() -> None:
    task = mixture(3, experts=32)
    expected = task.run()
    unused = sorted(set(range(32)) - set(moe.route(task.x, task.gate, 2)[1].flatten().tolist()))
    task.w13[unused] = torch.nan
    task.w2[unused] = torch.nan
    assert torch.equal(task.run(), expected)


@pytest.mark.parametrize("renormalise", [True, False])
def test_equals_the_models_own_layer(renormalise: bool) -> None:
    layer = SparseMoe(replace(SMALL, norm_topk_prob=renormalise)).double()
    x = torch.randn(13, SMALL.hidden_size, dtype=torch.float64)
    with torch.no_grad():
        w13, w2 = (part.transpose(1, 2) for part in (layer.experts.gate_up_proj, layer.experts.down_proj))
        found = moe.mixture_of_experts(x, layer.gate.weight, w13, w2, layer.top, renormalise=renormalise)
        torch.testing.assert_close(found, layer(x))


def test_shards_of_the_inner_columns_add_up() -> None:
    """What tensor parallel ranks compute, whose sum is the layer."""
    task = mixture(7, inter=32)
    gate, up = task.w13.chunk(2, 1)

    def shard(part: slice) -> Tensor:
        w13 = torch.cat([gate[:, part], up[:, part]], 1)
        return moe.mixture_of_experts(task.x, task.gate, w13, task.w2[:, :, part], task.top)

    parts = shard(slice(0, 16)) + shard(slice(16, 32))
    torch.testing.assert_close(parts, task.run(), rtol=1e-5, atol=1e-6)


def test_no_tokens() -> None:
    task = mixture(0)
    assert task.run().shape == (0, 32)


def test_what_does_not_belong_together_is_named() -> None:
    task = mixture(3)
    with pytest.raises(ConfigError, match=r"w13 \[8, 31, 32\].*\[E, 2 \* inter, hidden\]"):
        moe.mixture_of_experts(task.x, task.gate, task.w13[:, :31], task.w2, 2)
    with pytest.raises(ConfigError, match="9 experts a token of 8"):
        moe.mixture_of_experts(task.x, task.gate, task.w13, task.w2, 9)


def test_triton_without_its_interpreter_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "_has_triton", lambda: False)
    with pytest.raises(ConfigError, match="triton"):
        mixture(3).run("triton")
