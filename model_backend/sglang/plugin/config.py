"""Keye's configuration as SGLang and transformers hold it, and the way from there to keyeloop's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerFast

from keyeloop.model_backend.keye.config import KeyeConfig
from keyeloop.runtime.errors import ConfigError

MODEL_TYPE = "KeyeVL2"
_ROPE = ("rope_theta", "rope_scaling", "rope_parameters")
_PADDED = ("num_key_value_heads", "num_attention_heads", "moe_intermediate_size")
"""What SGLang rounds up on a CPU, without a word, where its ranks do not divide it (experts: by 32 columns each)."""


class KeyeVisionConfig(PretrainedConfig):  # type: ignore[misc]
    """``vision_config`` as it is."""

    model_type = f"{MODEL_TYPE}_vision"


class KeyeVL2Config(PretrainedConfig):  # type: ignore[misc]
    """``config.json`` as it is: every key an attribute."""

    model_type = MODEL_TYPE

    def __init__(self, vision_config: Any = None, **values: Any) -> None:
        nested = vision_config.to_dict() if isinstance(vision_config, PretrainedConfig) else vision_config or {}
        self.vision_config = KeyeVisionConfig(**nested)
        rope = {name: values.pop(name) for name in _ROPE if name in values}
        super().__init__(**values)
        for name, value in rope.items():  # past transformers' own reading, which knows no multimodal sections
            setattr(self, name, value)


def register_config() -> None:
    """Let transformers read a Keye folder without code from that folder."""
    AutoConfig.register(MODEL_TYPE, KeyeVL2Config, exist_ok=True)
    AutoTokenizer.register(KeyeVL2Config, fast_tokenizer_class=PreTrainedTokenizerFast, exist_ok=True)


def keye_config(served: PretrainedConfig) -> KeyeConfig:
    """What the model is built from, checked against the folder's own ``config.json`` where there is one.

    transformers 5 renames and fills in rope fields; a theta or an indexer size that differs from the file would change
    the model without a word, and so would a size that SGLang pads for its ranks. Raises ConfigError that names what
    differs.
    """
    values = served.to_dict()
    values.pop("quantization_config", None)  # the server's own quantisation, applied by its layers
    config = KeyeConfig.from_dict(values)
    folder = Path(getattr(served, "_name_or_path", "") or "")
    if (folder / "config.json").is_file():
        written = _written(folder)
        for name in ("rope_theta", "mrope_section", "indexer", "vision", "tokens"):
            if getattr(config, name) != getattr(written, name):
                raise ConfigError(
                    f"{folder / 'config.json'}: {name} is {getattr(written, name)}, yet SGLang read "
                    f"{getattr(config, name)}; this version of transformers is not supported"
                )
        for name in _PADDED:
            if getattr(config, name) != getattr(written, name):
                raise ConfigError(
                    f"{folder / 'config.json'}: {name} is {getattr(written, name)}, and SGLang made "
                    f"{getattr(config, name)} of it to split it over its ranks; take a smaller --tp-size"
                )
    return config


def _written(folder: Path) -> KeyeConfig:
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    values.pop("quantization_config", None)
    return KeyeConfig.from_dict(values)
