"""The torch reference on a checkpoint folder: distributions of a prompt, and what goes into each layer's attention."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from keyeloop.model_backend.keye.indexer import IndexerMode
from keyeloop.model_backend.keye.model import KeyeModel
from keyeloop.model_backend.keye.positions import rope_positions
from keyeloop.model_backend.keye.weights import load_folder


class ReferenceRun:
    """One model in one number format; text only."""

    def __init__(self, folder: Path, dtype: torch.dtype, device: torch.device) -> None:
        self.model: KeyeModel = load_folder(folder, dtype=dtype, device=device)

    @torch.inference_mode()
    def logprobs(self, ids: Sequence[int], places: range, mode: IndexerMode) -> Tensor:
        """Log-probabilities [places, vocabulary] in float32 behind some places of a prompt."""
        hidden = self._hidden(ids, mode)[places.start : places.stop]
        logits = self.model.lm_head(self.model.model.norm(hidden))
        return torch.log_softmax(logits.float(), -1)

    @torch.inference_mode()
    def attention_inputs(self, ids: Sequence[int]) -> list[Tensor]:
        """Normalised input [T, hidden] of every layer's attention and indexer."""
        found: list[Tensor] = []

        def keep(_: Any, given: tuple[Any, ...]) -> None:
            found.append(given[0])

        hooks = [layer.self_attn.register_forward_pre_hook(keep) for layer in self._layers()]
        try:
            self._hidden(ids, "exact")
        finally:
            for hook in hooks:
                hook.remove()
        return found

    def positions(self, tokens: int) -> Tensor:
        """Rope positions [3, tokens] of text."""
        found, _ = rope_positions([0] * tokens, (), self.model.config.tokens.pictures)
        return found.to(self.model.device)

    def indexers(self) -> list[Any]:
        """Every layer's."""
        return [layer.self_attn.sa_indexer for layer in self._layers()]

    def _layers(self) -> list[Any]:
        return list(self.model.model.layers)

    def _hidden(self, ids: Sequence[int], mode: IndexerMode) -> Tensor:
        hidden: Tensor = self.model.model(self.model.embed(list(ids)), self.positions(len(ids)), None, "sparse", mode)
        return hidden
