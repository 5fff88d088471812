"""Keye-VL-2.0 as one module, with the published parameter names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from keyeloop.model_backend.keye.cache import KVCache
from keyeloop.model_backend.keye.config import KeyeConfig
from keyeloop.model_backend.keye.decoder import AttentionMode, Decoder
from keyeloop.model_backend.keye.indexer import IndexerMode
from keyeloop.model_backend.keye.preprocess import patch_grid, patches_of
from keyeloop.model_backend.keye.projector import Projector
from keyeloop.model_backend.keye.vision import VisionTower
from keyeloop.runtime.errors import InputError

PATCHES_AT_ONCE = 8192
"""Patches that pass the vision tower together (whole pictures, at least one). Pictures are independent: exact."""


class KeyeModel(nn.Module):
    """The architecture for one sequence at a time. Weights are random until loaded; see :mod:`.weights`."""

    def __init__(self, config: KeyeConfig, indexer_mode: IndexerMode = "exact") -> None:
        super().__init__()
        self.config = config
        self.indexer_mode: IndexerMode = indexer_mode
        self.visual = VisionTower(config.vision)
        self.mlp_AR = Projector(config)
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    @property
    def dtype(self) -> torch.dtype:
        """Type of weights and activations."""
        return self.lm_head.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.lm_head.weight.device

    def new_cache(self, capacity: int = 1024) -> KVCache:
        """An empty cache of this model's type and device."""
        return KVCache(self.config, dtype=self.dtype, device=self.device, capacity=capacity)

    def encode_pictures(self, pictures: Sequence[np.ndarray]) -> list[Tensor]:
        """Features [n_tokens, hidden] of pictures, in their order.

        A picture is HxWx3 uint8 RGB whose sides are multiples of 28 (resizing is the sender's); it becomes
        ``H * W / 784`` tokens. Pictures of one size share a pass. Raises InputError for another shape or type.
        """
        vision = self.config.vision
        grids = [patch_grid(picture, vision) for picture in pictures]
        found: dict[int, Tensor] = {}
        for grid in dict.fromkeys(grids):
            members = [number for number, other in enumerate(grids) if other == grid]
            together = max(1, PATCHES_AT_ONCE // (grid[0] * grid[1]))
            for first in range(0, len(members), together):
                batch = members[first : first + together]
                pixels = np.stack([pictures[number] for number in batch])
                patches = patches_of(torch.from_numpy(pixels).to(self.device), vision, self.dtype)
                features = self.mlp_AR(self.visual(patches, *grid), *grid)
                found.update(zip(batch, features, strict=True))
        return [found[number] for number in range(len(grids))]

    def embed(self, ids: Sequence[int] | Tensor, pictures: Sequence[Tensor] = ()) -> Tensor:
        """Embeddings [T, hidden]: picture features stand where ``ids`` holds picture tokens, in order.

        Raises InputError when the number of picture tokens differs from the number of features.
        """
        tokens = torch.as_tensor(ids, dtype=torch.int64, device=self.device)
        embedded: Tensor = self.model.embed_tokens(tokens)
        image, video = self.config.tokens.pictures
        places = ((tokens == image) | (tokens == video)).nonzero().squeeze(1)
        given = sum(int(picture.shape[0]) for picture in pictures)
        if given != places.shape[0]:
            raise InputError(f"{places.shape[0]} picture tokens in the prompt, {given} picture features given; "
                             "a picture takes width * height / 784 tokens")  # fmt: skip
        if not given:
            return embedded
        return embedded.index_copy(0, places, torch.cat(list(pictures)).to(embedded))

    def forward(
        self,
        embeddings: Tensor,
        positions: Tensor,
        cache: KVCache | None = None,
        mode: AttentionMode = "sparse",
        logits: Literal["last", "all"] = "last",
    ) -> Tensor:
        """Next-token logits, [1, vocab] of the last token or [T, vocab] of all.

        ``embeddings`` [T, hidden] follow the ``cache.length`` tokens already read; ``positions`` [3, T] are their rope
        positions (time, height, width). The cache takes in the new tokens.
        """
        hidden = self.model(embeddings, positions, cache, mode, self.indexer_mode)
        if logits == "last":
            hidden = hidden[-1:]
        return self.lm_head(self.model.norm(hidden))  # type: ignore[no-any-return]
