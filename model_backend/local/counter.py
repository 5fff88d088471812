"""What a model folder tells without its weights: its context, its picture arithmetic, how many tokens a request has."""

from __future__ import annotations

from pathlib import Path

from keyeloop.model_backend.base import Capabilities, Request
from keyeloop.model_backend.keye.config import KeyeConfig
from keyeloop.model_backend.keye.cost import KEYE_2_LIMITS, KEYE_TINY_LIMITS, KeyeVisualCost, VisionLimits
from keyeloop.model_backend.keye.presets import keye_tiny
from keyeloop.model_backend.keye.tokenizer import KeyeTokenizer
from keyeloop.model_backend.local.folder import EMBEDDED_MODEL, model_folder
from keyeloop.model_backend.local.prompt import PromptBuilder
from keyeloop.runtime.content import Usage


def limits_of(config: KeyeConfig) -> VisionLimits:
    """The picture sizes that a model was trained on: the embedded model's for its shape, else Keye-VL-2.0's."""
    return KEYE_TINY_LIMITS if config == keye_tiny(config.vocab_size, config.tokens) else KEYE_2_LIMITS


class LocalCounter:
    """Counts requests as :class:`.engine.LocalBackend` does, without torch and without loading a weight."""

    def __init__(self, name_or_path: str | Path) -> None:
        """Reads config and tokenizer of a model. Raises InputError and ConfigError for a folder that is none."""
        folder = model_folder(name_or_path)
        name = EMBEDDED_MODEL if name_or_path == EMBEDDED_MODEL else folder.resolve().name
        config = KeyeConfig.from_folder(folder)
        cost = KeyeVisualCost(limits_of(config))
        self._prompts = PromptBuilder(KeyeTokenizer(folder / "tokenizer.json"))
        self._capabilities = Capabilities(
            name, config.max_position_embeddings, cost, native_video=True, tool_images=True, constrained_calls=True
        )

    def capabilities(self) -> Capabilities:
        """Those of the engine."""
        return self._capabilities

    def count_tokens(self, request: Request) -> Usage:
        """Exact tokens of a request. Raises BackendError for a picture that cannot be laid out."""
        return self._prompts.build(request).usage
