"""SGLang's multimodal processor for Keye: token ids and pictures in, what the scheduler needs out.

It runs in the process that serves HTTP, where it also takes over how a chat request is rendered. Every picture, a
still or a frame, is an item of its own: its feature is the picture's file, which the model decodes and cuts in patches
when it needs them, and its hash is made of the picture's bytes and size. So frames are cached one by one, a clip
that shares frames with another shares their features, and prompts that differ in a picture never share keys and values
(the times stand before each frame as text, in the token ids themselves).
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sglang.srt.managers.schedule_batch import MultimodalProcessorOutput
from sglang.srt.multimodal.processors.base_processor import BaseMultimodalProcessor

from keyeloop.model_backend.keye.positions import Grid, rope_positions
from keyeloop.model_backend.keye.tokenizer import KeyeTokenizer
from keyeloop.model_backend.local.counter import limits_of
from keyeloop.model_backend.sglang.plugin import ARCHITECTURE
from keyeloop.model_backend.sglang.plugin.config import keye_config
from keyeloop.model_backend.sglang.plugin.media.asked import asked_of
from keyeloop.model_backend.sglang.plugin.media.chat import take_over_chat
from keyeloop.model_backend.sglang.plugin.media.expansion import expand
from keyeloop.model_backend.sglang.plugin.media.items import grid_of, item_of
from keyeloop.model_backend.sglang.plugin.media.pictures import PictureLoader
from keyeloop.model_backend.sglang.plugin.media.refusing import require_refusals
from keyeloop.model_backend.sglang.plugin.media.store import ReferencedStore
from keyeloop.runtime.errors import KeyeloopError

logger = logging.getLogger(__name__)


class KeyeProcessor(BaseMultimodalProcessor):  # type: ignore[misc]
    """One for each server process."""

    models = [type(ARCHITECTURE, (), {})]  # noqa: RUF012  SGLang matches it by its name
    prefer_tokenized_input = True
    preserve_processor_input_ids = True
    gpu_image_decode = False
    supports_mm_processor_concurrency = False  # pictures have threads of their own

    def __init__(self, hf_config: Any, server_args: Any, _processor: Any, *args: Any, **kwargs: Any) -> None:
        """Raises ConfigError where the loaders of SGLang were not replaced: it would open what requests name."""
        super().__init__(hf_config, server_args, _processor, *args, **kwargs)
        require_refusals()
        take_over_chat()
        config = keye_config(hf_config)
        self.keye_tokens, self._merge = config.tokens, config.vision.spatial_merge_size
        self.keye_tokenizer = KeyeTokenizer(tokenizer_file(self._tokenizer, hf_config))
        self._loader = PictureLoader(limits_of(config), ReferencedStore.from_environment(os.environ))

    async def process_mm_data_async(
        self, image_data: Any, audio_data: Any, input_text: Any, request_obj: Any, **_: Any
    ) -> MultimodalProcessorOutput:
        """Load, size and lay out one request; ValueError, which SGLang answers as a bad request, where it cannot be."""
        videos = getattr(request_obj, "video_data", None)
        return await asyncio.to_thread(self._process, input_text, image_data, audio_data, videos)

    def compute_mrope_positions(self, input_ids: Any, mm_items: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions [3, tokens] of a prompt that is written out, and what decoding adds, as [[delta]]."""
        ordered = sorted(mm_items, key=lambda item: item.offsets[0][0])
        ids = input_ids.flatten().tolist() if isinstance(input_ids, torch.Tensor) else list(input_ids)
        return self._positions(ids, [grid_of(item) for item in ordered])

    def _process(self, prompt: Any, images: Any, audios: Any, videos: Any) -> MultimodalProcessorOutput:
        began_s = time.perf_counter()
        try:
            if audios:
                raise ValueError("this model does not hear: send text, pictures and clips")
            stills, clips = self._loader.load(asked_of(images, clip=False), asked_of(videos, clip=True))
            loaded_s = time.perf_counter()
            ids = self.keye_tokenizer.encode(prompt, special=True) if isinstance(prompt, str) else list(prompt)
            expanded = expand(ids, stills, clips, self.keye_tokens, self._encode_time)
            positions, delta = self._positions(expanded.ids, [place.grid for place in expanded.places])
        except KeyeloopError as error:
            raise ValueError(str(error)) from None
        items = [item_of(place) for place in expanded.places]
        if items:
            logger.info("%d pictures loaded in %.3f s, %d tokens laid out in %.3f s",
                        len(items), loaded_s - began_s, len(expanded.ids), time.perf_counter() - loaded_s)  # fmt: skip
        return MultimodalProcessorOutput(
            mm_items=items,
            input_ids=expanded.ids,
            padded_input_ids=MultimodalProcessorOutput.build_padded_input_ids(expanded.ids, items),
            im_start_id=self.keye_tokens.vision_start,
            im_end_id=self.keye_tokens.vision_end,
            im_token_id=self.keye_tokens.image,
            video_token_id=self.keye_tokens.video,
            mrope_positions=positions,
            mrope_position_delta=delta,
        )

    def _encode_time(self, time_s: float) -> list[int]:
        return self.keye_tokenizer.encode(f"<|frame|>{time_s:.1f}", special=True)

    def _positions(self, ids: list[int], grids: Sequence[Grid]) -> tuple[torch.Tensor, torch.Tensor]:
        positions, delta = rope_positions(ids, grids, self.keye_tokens.pictures, merge=self._merge)
        return positions, torch.tensor([[delta]], dtype=torch.int64)


def tokenizer_file(tokenizer: Any, hf_config: Any) -> Path:
    """The ``tokenizer.json`` that a served tokenizer came from."""
    places = (getattr(tokenizer, "name_or_path", ""), getattr(hf_config, "_name_or_path", ""))
    files = [Path(place) / "tokenizer.json" for place in places if place]
    return next((file for file in files if file.is_file()), files[0] if files else Path("tokenizer.json"))
