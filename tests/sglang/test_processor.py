"""What the processor hands to SGLang's own classes, and what it needs to find changed in SGLang."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from keyeloop.model_backend.keye.config import KeyeConfig
from keyeloop.model_backend.keye.positions import rope_positions
from keyeloop.model_backend.keye.tokenizer import KeyeTokenizer
from keyeloop.model_backend.local.folder import EMBEDDED_MODEL, model_folder
from keyeloop.model_backend.sglang.plugin.media.expansion import Expanded, expand
from keyeloop.model_backend.sglang.plugin.media.fitting import Size
from keyeloop.model_backend.sglang.plugin.media.shown import Shown, ShownClip
from keyeloop.runtime.picture import encode_picture

pytestmark = [
    pytest.mark.sglang,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore"),  # SGLang's own, on import
]
FOLDER = model_folder(EMBEDDED_MODEL)


def shown(level: int) -> Shown:
    return Shown(encode_picture(np.full((140, 252, 3), level, np.uint8)), Size(252, 140), "frame", bytes([level]) * 32)


def expanded() -> Expanded:
    tokenizer = KeyeTokenizer(FOLDER / "tokenizer.json")
    text = "Look<|vision_start|><|image_pad|><|vision_end|><|vision_start|><|video_pad|><|vision_end|>now"
    clip = ShownClip((shown(2), shown(3)), (1.0, 2.5))
    return expand(tokenizer.encode(text, special=True), [shown(1)], [clip], KeyeConfig.from_folder(FOLDER).tokens,
                  lambda time_s: tokenizer.encode(f"<|frame|>{time_s:.1f}", special=True))  # fmt: skip


def test_every_picture_is_an_item_with_its_own_value_in_the_cache_key(sglang_here: None) -> None:
    from sglang.srt.managers.schedule_batch import MM_PAD_SHIFT_VALUE, MultimodalProcessorOutput

    from keyeloop.model_backend.sglang.plugin.media.items import item_of, picture_of

    prompt = expanded()
    items = [item_of(place) for place in prompt.places]
    assert [item.offsets for item in items] == [[(place.start, place.end)] for place in prompt.places]
    assert [
        np.array_equal(picture_of(item).pixels(), place.shown.pixels())
        for item, place in zip(items, prompt.places, strict=True)
    ] == [True] * 3
    assert len({item.pad_value for item in items}) == len({item.hash for item in items}) == 3
    assert min(item.pad_value for item in items) > 1 << 40  # wide: nothing to collide by chance
    padded = MultimodalProcessorOutput.build_padded_input_ids(prompt.ids, items)
    places = {index for place in prompt.places for index in range(place.start, place.end + 1)}
    assert [padded[index] for index in range(len(padded)) if index not in places] == [
        token for index, token in enumerate(prompt.ids) if index not in places
    ]
    assert all(padded[index] >= MM_PAD_SHIFT_VALUE for index in places)


def test_positions_of_items_are_those_of_the_prompt(sglang_here: None) -> None:
    from keyeloop.model_backend.sglang.plugin.media.items import item_of
    from keyeloop.model_backend.sglang.plugin.processors import keye

    prompt, config = expanded(), KeyeConfig.from_folder(FOLDER)
    processor: Any = keye.KeyeProcessor.__new__(keye.KeyeProcessor)
    processor.keye_tokens, processor._merge = config.tokens, 2
    items = [item_of(place) for place in reversed(prompt.places)]
    positions, delta = processor.compute_mrope_positions(torch.tensor([prompt.ids]), items)
    wanted, wanted_delta = rope_positions(prompt.ids, [place.grid for place in prompt.places], config.tokens.pictures)
    assert torch.equal(positions, wanted) and delta.tolist() == [[wanted_delta]]


def test_sglang_as_published_opens_what_is_named_and_is_not_served(sglang_here: None, tmp_path: Path) -> None:
    """Without the plugin's hooks the check ends the server; with them it passes."""
    check = "from keyeloop.model_backend.sglang.plugin.media.refusing import require_refusals as check; check()"
    hooked = "from sglang.srt.plugins import load_plugins; load_plugins(); "
    environment = {**os.environ, "SGLANG_USE_CPU_ENGINE": "1"}

    def ran(code: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    bare = ran(check)
    assert bare.returncode and "this server would open what requests name" in bare.stderr
    patched = ran(hooked + check)
    assert patched.returncode == 0, patched.stderr[-2000:]
