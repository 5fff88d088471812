"""Published weights into SGLang's layers: int8 and its scales in any order, experts fused or not, nothing left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from keyeloop.model_backend.keye.export import quantise_rows
from keyeloop.model_backend.keye.model import KeyeModel
from keyeloop.model_backend.sglang.plugin.loading import dequantised, load
from keyeloop.runtime.errors import CheckpointError
from tests.model_backend.keye_models import SMALL, small_model

CONFIG = SMALL


class Stacked(nn.Module):
    """Parameters under SGLang's names, with loaders that write down what they are given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: dict[tuple[Any, ...], Tensor] = {}
        self._named: dict[str, nn.Parameter] = {}
        with torch.device("meta"):
            model = KeyeModel(CONFIG)
        for name, parameter in model.named_parameters():
            if ".self_attn." in name and name.startswith("model.") and name.endswith(("q_proj.weight", "k_proj.weight",
                                                                                      "v_proj.weight")):  # fmt: skip
                if "sa_indexer" not in name:
                    name = name.rsplit(".", 2)[0] + ".qkv_proj.weight"
            elif name.endswith("experts.gate_up_proj"):
                name = name.replace("gate_up_proj", "w13_weight")
            elif name.endswith("experts.down_proj"):
                name = name.replace("down_proj", "w2_weight")
            held = nn.Parameter(torch.empty(parameter.shape))
            held.weight_loader = self._loader(name)  # type: ignore[attr-defined]
            self._named[name] = held

    def named_parameters(self, *_: Any, **__: Any) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self._named.items()

    def _loader(self, name: str) -> Any:
        def loader(_: nn.Parameter, tensor: Tensor, *shard: Any, **expert: Any) -> None:
            key = (name, *shard, *expert.values())
            assert key not in self.given
            self.given[key] = tensor

        return loader


def checkpoint() -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in small_model(torch.float32).named_parameters()}


def test_every_published_tensor_reaches_its_shard() -> None:
    model, weights = Stacked(), checkpoint()
    load(model, CONFIG, weights.items())
    layer = "model.layers.1"
    assert torch.equal(
        model.given[f"{layer}.self_attn.qkv_proj.weight", "k"], weights[f"{layer}.self_attn.k_proj.weight"]
    )
    indexer = f"{layer}.self_attn.sa_indexer.q_proj.weight"
    assert torch.equal(model.given[(indexer,)], weights[indexer])
    fused, ffn = weights[f"{layer}.mlp.experts.gate_up_proj"], CONFIG.moe_intermediate_size
    name = f"{layer}.mlp.experts.w13_weight"
    assert torch.equal(model.given[name, name, "w1", 3], fused[3, :, :ffn].t())
    assert torch.equal(model.given[name, name, "w3", 3], fused[3, :, ffn:].t())
    down = f"{layer}.mlp.experts.w2_weight"
    assert torch.equal(model.given[down, down, "w2", 4], weights[f"{layer}.mlp.experts.down_proj"][4].t())


def test_experts_stored_one_by_one_are_the_same() -> None:
    fused, single = Stacked(), Stacked()
    weights = checkpoint()
    load(fused, CONFIG, weights.items())
    ffn = CONFIG.moe_intermediate_size
    apart: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        stem, _, leaf = name.rpartition(".")
        for expert in range(tensor.shape[0] if leaf in ("gate_up_proj", "down_proj") else 0):
            parts = {"down": tensor[expert]}
            if leaf == "gate_up_proj":
                parts = {"gate": tensor[expert, :, :ffn], "up": tensor[expert, :, ffn:]}
            apart |= {f"{stem}.{expert}.{part}_proj.weight": weight.t() for part, weight in parts.items()}
        if leaf not in ("gate_up_proj", "down_proj"):
            apart[name] = tensor
    load(single, CONFIG, apart.items())
    assert single.given.keys() == fused.given.keys()
    assert all(torch.equal(single.given[key], fused.given[key]) for key in fused.given)


def test_int8_is_multiplied_by_its_scale_wherever_that_comes() -> None:
    tensor = torch.randn(6, 8)
    values, scale = quantise_rows(tensor)
    pairs = [("a.weight", values), ("a.weight.scale", scale)]
    for order in (pairs, pairs[::-1]):
        ((name, found),) = dequantised(order)
        assert name == "a.weight"
        assert torch.equal(found, values.float() * scale)
    with pytest.raises(CheckpointError, match=r"a\.weight"):
        list(dequantised(pairs[:1]))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda weights: weights.pop("lm_head.weight"), r"1 tensors missing: lm_head\.weight"),
        (lambda weights: weights.pop("model.layers.0.mlp.experts.down_proj"), r"missing: .*experts\.down_proj"),
        (lambda weights: weights.update({"model.extra": torch.zeros(1)}), r"model\.extra: not part of the model"),
        (lambda weights: weights.update({"model.norm.weight": torch.zeros(3)}), r"model\.norm\.weight: shape \[3\]"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_named(change: Any, told: str) -> None:
    weights = checkpoint()
    change(weights)
    with pytest.raises(CheckpointError, match=told):
        load(Stacked(), CONFIG, weights.items())


def test_tensors_that_no_forward_pass_reads_are_passed_over() -> None:
    model, weights = Stacked(), checkpoint()
    weights["visual.vision_model.head.probe"] = torch.zeros(3)
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(3)
    load(model, CONFIG, weights.items())
    assert not any("head.probe" in key[0] or "packing" in key[0] for key in model.given)
