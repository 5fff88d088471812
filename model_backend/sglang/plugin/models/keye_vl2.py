"""The model class that SGLang serves: pictures to features, features and text to hidden states, those to logits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

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
from keyeloop.runtime.errors import InputError


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
        """Features [tokens, hidden] of stills, in order; each item holds [n, H, W, 3] uint8 pixels."""
        return self.encode([item.feature for item in items])

    def get_video_feature(self, items: Sequence[Any]) -> Tensor:
        """The same for frames of videos: a frame is a picture of its own."""
        return self.encode([item.feature for item in items])

    def encode(self, stacks: Sequence[Tensor]) -> Tensor:
        """Features [all tokens, hidden] of stacks of pictures [n, H, W, 3] uint8 RGB, sides multiples of 28.

        Pictures of one size pass the tower together, at most 8,192 patches at once; they never see each other. Raises
        InputError for another shape or type.
        """
        device, dtype = self.mlp_AR.linear_1.weight.device, self.mlp_AR.linear_1.weight.dtype
        pictures = [picture for stack in stacks for picture in self._checked(stack)]
        found: list[Tensor | None] = [None] * len(pictures)
        sizes = [tuple(picture.shape[:2]) for picture in pictures]
        side = self.keye.vision.patch_size
        with self.encoding.of(len(pictures), device):
            for height, width in dict.fromkeys(sizes):
                grid = (height // side, width // side)
                members = [number for number, size in enumerate(sizes) if size == (height, width)]
                together = max(1, PATCHES_AT_ONCE // (grid[0] * grid[1]))
                for first in range(0, len(members), together):
                    batch = members[first : first + together]
                    pixels = torch.stack([pictures[number] for number in batch]).to(device, non_blocking=True)
                    features = self.mlp_AR(self.visual(patches_of(pixels, self.keye.vision, dtype), *grid), *grid)
                    for number, feature in zip(batch, features, strict=True):
                        found[number] = feature
            return torch.cat([feature for feature in found if feature is not None])

    def _checked(self, stack: Tensor) -> Tensor:
        side = self.keye.vision.patch_size * self.keye.vision.spatial_merge_size
        if stack.ndim != 4 or stack.shape[3] != 3 or stack.dtype != torch.uint8 or stack.shape[1] % side or (
            stack.shape[2] % side
        ):  # fmt: skip
            raise InputError(f"pictures must be [n, height, width, 3] uint8 with sides that are multiples of {side}, "
                             f"are {list(stack.shape)} {stack.dtype}")  # fmt: skip
        return stack

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Load a checkpoint by its published names; see :func:`loading.load`."""
        load(self, self.keye, weights)
        self.weights_from = "checkpoint"


EntryClass = KeyeVL2MoeForConditionalGeneration
