"""The model class that SGLang serves: pictures to features, features and text to hidden states, those to logits."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from sglang.srt.layers.logits_processor import LogitsProcessor
from sglang.srt.layers.vocab_parallel_embedding import ParallelLMHead
from sglang.srt.managers.mm_utils import MultiModalityDataPaddingPatternMultimodalTokens, general_mm_embed_routine
from torch import Tensor, nn

from keyeloop.model_backend.keye.model import PATCHES_AT_ONCE
from keyeloop.model_backend.keye.preprocess import patches_of
from keyeloop.model_backend.keye.projector import Projector
from keyeloop.model_backend.keye.vision import VisionTower
from keyeloop.model_backend.sglang.plugin.config import keye_config
from keyeloop.model_backend.sglang.plugin.encoding_time import EncodingTime
from keyeloop.model_backend.sglang.plugin.layers import ServedDecoder
from keyeloop.model_backend.sglang.plugin.loading import load
from keyeloop.model_backend.sglang.plugin.media.items import picture_of
from keyeloop.model_backend.sglang.plugin.media.shown import Shown


class KeyeVL2MoeForConditionalGeneration(nn.Module):
    """Keye-VL-2.0 under its published name. The vision tower and projector are replicated on every rank."""

    def __init__(self, config: Any, quant_config: Any = None, prefix: str = "") -> None:
        super().__init__()
        self.config = config
        self.quant_config = quant_config
        self.keye = keye_config(config)
        self.visual = VisionTower(self.keye.vision)
        self.mlp_AR = Projector(self.keye)
        self.model = ServedDecoder(self.keye, config, quant_config)
        self.lm_head = ParallelLMHead(self.keye.vocab_size, self.keye.hidden_size)
        self.logits_processor = LogitsProcessor(config)
        self.weights_from = "nothing yet"
        self.encoding = EncodingTime()
        self.decoders = ThreadPoolExecutor(min(16, os.cpu_count() or 1), thread_name_prefix="keyeloop-decoding")

    def forward(self, input_ids: Tensor, positions: Tensor, forward_batch: Any, **_: Any) -> Any:
        """Logits of a batch; picture tokens are replaced by features on the way."""
        hidden = general_mm_embed_routine(
            input_ids=input_ids, forward_batch=forward_batch, language_model=self.model, multimodal_model=self,
            positions=positions,
        )  # fmt: skip
        return self.logits_processor(input_ids, hidden, self.lm_head, forward_batch)

    def get_input_embeddings(self) -> nn.Module:
        """The token embedding."""
        return self.model.get_input_embeddings()

    def pad_input_ids(self, input_ids: Any, mm_inputs: Any) -> Any:
        """Put each picture's own value in the place of its tokens, for the radix cache to tell pictures apart."""
        return MultiModalityDataPaddingPatternMultimodalTokens().pad_input_tokens(input_ids, mm_inputs)

    def get_image_feature(self, items: Sequence[Any]) -> Tensor:
        """Features [tokens, hidden] of stills, in order."""
        return self.encode([picture_of(item) for item in items])

    def get_video_feature(self, items: Sequence[Any]) -> Tensor:
        """The same for frames of videos: a frame is a picture of its own."""
        return self.encode([picture_of(item) for item in items])

    def encode(self, pictures: Sequence[Shown]) -> Tensor:
        """Features [all tokens, hidden] of pictures, in order.

        Pictures of one size pass the tower together, at most 8,192 patches at once; they never see each other.
        """
        device, dtype = self.mlp_AR.linear_1.weight.device, self.mlp_AR.linear_1.weight.dtype
        found: list[Tensor | None] = [None] * len(pictures)
        side = self.keye.vision.patch_size
        for size in dict.fromkeys(picture.size for picture in pictures):
            grid = (size.height // side, size.width // side)
            members = [number for number, picture in enumerate(pictures) if picture.size == size]
            together = max(1, PATCHES_AT_ONCE // (grid[0] * grid[1]))
            for first in range(0, len(members), together):
                batch = members[first : first + together]
                decoded = np.stack(list(self.decoders.map(Shown.pixels, (pictures[number] for number in batch))))
                with self.encoding.of(len(batch), device):
                    pixels = torch.from_numpy(decoded).to(device, non_blocking=True)
                    features = self.mlp_AR(self.visual(patches_of(pixels, self.keye.vision, dtype), *grid), *grid)
                for number, feature in zip(batch, features, strict=True):
                    found[number] = feature
        return torch.cat([feature for feature in found if feature is not None])

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Load a checkpoint by its published names; see :func:`loading.load`."""
        load(self, self.keye, weights)
        self.model.join()
        self.weights_from = "checkpoint"


EntryClass = KeyeVL2MoeForConditionalGeneration
