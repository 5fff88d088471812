"""The one sequence that the engine remembers, and how much of it the next request can go on from."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from keyeloop.model_backend.keye.decoder import AttentionMode
from keyeloop.model_backend.keye.model import KeyeModel
from keyeloop.model_backend.keye.positions import rope_positions
from keyeloop.model_backend.local.pictures import PictureEncoder
from keyeloop.model_backend.local.prompt import Key, Prompt
from keyeloop.runtime.media import MediaStore

PREFILL_TOKENS = 512
"""Tokens that pass the decoder together; between two such chunks a request can be stopped."""


class CachedSequence:
    """Keys, values and index keys of the last sequence, with what stood at every place of it.

    Consistent after any exception: a place counts once all layers have taken it in.
    """

    def __init__(self, model: KeyeModel, mode: AttentionMode) -> None:
        self._model, self._mode = model, mode
        self._encoder = PictureEncoder(model)
        self._cache = model.new_cache()
        self._keys: list[Key] = []
        self._next_position = 0

    def read(self, prompt: Prompt, media: MediaStore, room: int, check: Callable[[], None]) -> tuple[Tensor, int]:
        """Take in a request: logits [vocab] of what follows it, and how many of its tokens were already known.

        ``room`` is how many tokens may follow. ``check`` is called between chunks and may raise to stop.
        """
        known = min(self._common(prompt.keys), len(prompt.ids) - 1)
        self._cache.truncate(known)
        del self._keys[known:]
        self._cache.reserve(len(prompt.ids) - known + room)
        fresh = [placed for placed in prompt.pictures if placed.start + placed.tokens > known]
        features = self._encoder.features(fresh, media, check)
        if fresh and fresh[0].start < known:
            features[0] = features[0][known - fresh[0].start :]
        embedded = self._model.embed(prompt.ids[known:], features)
        positions = self._positions(prompt)[:, known:].to(self._model.device)
        for first in range(0, embedded.shape[0], PREFILL_TOKENS):
            check()
            stop = first + PREFILL_TOKENS
            logits = self._model(embedded[first:stop], positions[:, first:stop], self._cache, self._mode)
            self._keys.extend(prompt.keys[known + first : known + stop])
        return logits[-1], known

    def extend(self, token: int) -> Tensor:
        """Take in one more token: logits [vocab] of what follows it."""
        positions = torch.full((3, 1), self._next_position, device=self._model.device)
        logits: Tensor = self._model(self._model.embed([token]), positions, self._cache, self._mode)
        self._keys.append(token)
        self._next_position += 1
        return logits[-1]

    def forget(self, *, pictures: bool = False) -> None:
        """Free what is remembered of the sequence, and of the pictures where asked."""
        self._cache, self._keys = self._model.new_cache(1), []
        if pictures:
            self._encoder = PictureEncoder(self._model)

    def _positions(self, prompt: Prompt) -> Tensor:
        """Rope positions [3, T] of a request; notes that of the token after it."""
        config = self._model.config
        side, merge = config.vision.patch_size, config.vision.spatial_merge_size
        media = [placed.image.media for placed in prompt.pictures]
        grids = [(1, picture.height // side, picture.width // side) for picture in media]
        positions, delta = rope_positions(prompt.ids, grids, config.tokens.pictures, merge=merge)
        self._next_position = len(prompt.ids) + delta
        return positions

    def _common(self, keys: list[Key]) -> int:
        for place, (old, new) in enumerate(zip(self._keys, keys, strict=False)):
            if old != new:
                return place
        return min(len(self._keys), len(keys))
