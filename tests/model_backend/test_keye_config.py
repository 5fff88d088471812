"""config.json: both known shapes survive a round trip, and what would change the model silently is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from keyeloop.model_backend.keye.config import KeyeConfig, SpecialTokens
from keyeloop.model_backend.keye.presets import keye_30b, keye_tiny
from keyeloop.runtime.errors import ConfigError, InputError
from tests.model_backend.keye_models import SMALL

TINY = keye_tiny(1000, SpecialTokens(image=261, video=262, vision_start=259, vision_end=260))


@pytest.mark.parametrize("config", [keye_30b(), TINY, SMALL])
def test_round_trip(config: KeyeConfig, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    assert KeyeConfig.from_folder(tmp_path) == config


def test_indexer_rope_sections_follow_its_head_size() -> None:
    assert keye_30b().index_mrope_section == (8, 12, 12)
    assert TINY.index_mrope_section == (8, 12, 12)


def test_text_config_comes_first_and_rope_parameters_are_read() -> None:
    flat = keye_30b().to_dict()
    text = {"hidden_size": 1024, "rope_parameters": {"rope_theta": 5e5, "mrope_section": [16, 24, 24]}}
    for key in ("rope_theta", "rope_scaling"):
        del flat[key]
    config = KeyeConfig.from_dict({**flat, "text_config": text})
    assert (config.hidden_size, config.rope_theta, config.mrope_section) == (1024, 5e5, (16, 24, 24))


@pytest.mark.parametrize(
    "path",
    [
        "rope_theta", "rope_scaling.mrope_section", "sa_config", "sa_config.indexer_num_heads", "sa_config.topk",
        "sa_config.indexer_head_dim", "image_token_id", "video_token_id", "vision_start_token_id",
        "vision_end_token_id", "vision_config", "vision_config.image_size", "num_experts", "vocab_size",
    ],
)  # fmt: skip
def test_a_missing_key_is_named(path: str) -> None:
    data = keye_30b().to_dict()
    *parents, leaf = path.split(".")
    section: dict[str, Any] = data[parents[0]] if parents else data
    del section[leaf]
    with pytest.raises(ConfigError, match=path.replace(".", r"\.")):
        KeyeConfig.from_dict(data)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rope_parameters": {"rope_theta": 1e6}}, "given twice"),
        ({"rope_scaling": {"mrope_section": [16, 24, 25]}}, "sum to"),
        ({"rope_scaling": {"mrope_section": [16, 24, 24], "rope_type": "yarn"}}, "yarn"),
        ({"rope_scaling": {"mrope_section": [16, 24, 24], "mrope_interleaved": True}}, "contiguous"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings"),
        ({"attention_bias": True}, "attention_bias"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"mlp_only_layers": [3]}, "mlp_only_layers"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config"),
        ({"num_experts_per_tok": 129}, "num_experts_per_tok"),
        ({"hidden_size": "2048"}, "hidden_size"),
    ],
)
def test_what_would_be_computed_wrongly_is_refused(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        KeyeConfig.from_dict({**keye_30b().to_dict(), **change})


def test_folders_without_a_usable_config(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such model folder"):
        KeyeConfig.from_folder(tmp_path / "absent")
    with pytest.raises(InputError, match=r"no config\.json"):
        KeyeConfig.from_folder(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="not JSON"):
        KeyeConfig.from_folder(tmp_path)
