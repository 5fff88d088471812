"""Random weights: the same for everybody who names the seed, of proper size, and through the server's own loading."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from keyeloop.model_backend.keye.config import KeyeConfig, SpecialTokens
from keyeloop.model_backend.keye.layout import published_shapes
from keyeloop.model_backend.keye.positions import rope_positions
from keyeloop.model_backend.keye.presets import keye_tiny
from keyeloop.model_backend.keye.random_weights import random_model, random_tensors
from keyeloop.model_backend.sglang.plugin.random_weights import fill_randomly, seed_of
from keyeloop.runtime.errors import ConfigError


@pytest.fixture(scope="module")
def config() -> KeyeConfig:
    return keye_tiny(300, SpecialTokens(image=261, video=262, vision_start=259, vision_end=260))


def test_every_published_tensor_comes_once_with_its_shape(config: KeyeConfig) -> None:
    found = [
        (name, tuple(tensor.shape)) for name, tensor in random_tensors(config, 0, device="cpu", dtype=torch.bfloat16)
    ]
    assert dict(found) == published_shapes(config)
    assert len(found) == len(dict(found))


def test_a_seed_names_the_weights(config: KeyeConfig) -> None:
    def weights(seed: int) -> dict[str, torch.Tensor]:
        return dict(random_tensors(config, seed, device="cpu", dtype=torch.float32))

    one, again, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)
    layers = [one[f"model.layers.{layer}.self_attn.o_proj.weight"] for layer in (0, 1)]
    assert not torch.equal(*layers)


@torch.inference_mode()
def test_activations_keep_their_size_and_logits_differ(config: KeyeConfig) -> None:
    model = random_model(config, 0)
    ids = list(range(200))
    positions, _ = rope_positions(ids, (), config.tokens.pictures)
    logits = model(model.embed(ids), positions, logits="all")
    assert torch.isfinite(logits).all()
    assert 0.5 < logits.std(-1).mean() < 2.0
    picture = torch.randint(0, 255, (56, 84, 3), dtype=torch.uint8).numpy()
    (features,) = model.encode_pictures([picture])
    assert 0.05 < features.std() < 20


class Model:
    """As much of the served model as loading needs."""

    def __init__(self, config: KeyeConfig) -> None:
        self.keye, self.weights_from, self.loaded = config, "nothing yet", 0
        self.mlp_AR = random_model(config, 5).mlp_AR

    def load_weights(self, weights: Any) -> None:
        self.loaded = sum(1 for _ in weights)
        self.weights_from = "checkpoint"


def test_a_server_says_that_its_weights_are_random(config: KeyeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYELOOP_RANDOM_WEIGHTS", "7")
    model = Model(config)
    fill_randomly(lambda _: pytest.fail("SGLang's own were made"), model)
    assert model.weights_from == "random, seed 7"
    assert model.loaded == len(published_shapes(config))


def test_other_models_keep_sglangs_own_dummy_weights() -> None:
    assert fill_randomly(lambda model, low: (model, low), "another", low=1) == ("another", 1)


def test_a_seed_that_is_no_number_is_named() -> None:
    with pytest.raises(ConfigError, match="KEYELOOP_RANDOM_WEIGHTS='x'"):
        seed_of("x")
