"""The two models whose values are known, and where each expectation comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from keyeloop.model_backend.keye.config import KeyeConfig, SpecialTokens
from keyeloop.model_backend.keye.cost import KEYE_2_LIMITS, KEYE_TINY_LIMITS, VisionLimits
from keyeloop.model_backend.keye.presets import KEYE_30B, KEYE_TINY, keye_30b, keye_tiny

PUBLISHED_COUNT = "published total of 31,122,082,160 parameters, which these sizes give exactly"
SERVING_CODE = "serving code Kwai-Keye/sglang, branch keye-vl-v2-30b-release"
QUOTED_CONFIG = "config.json of the release, as quoted by others"
BASE_MODEL = "inferred from the base, Qwen3-30B-A3B-Thinking-2507"
OLDER_KEYE = "inferred from Keye-VL-1.5 and Keye-VL-8B"
TRAINED_HERE = "training/keye_tiny of this project"

_QWEN_IDS = {
    "<|im_start|>": 151644, "<|im_end|>": 151645, "<tool_call>": 151657, "</tool_call>": 151658,
    "<tool_response>": 151665, "</tool_response>": 151666, "<think>": 151667, "</think>": 151668,
}  # fmt: skip
_TINY_IDS = {
    "<|im_start|>": 257, "<|im_end|>": 258, "<think>": 264, "</think>": 265, "<tool_call>": 266,
    "</tool_call>": 267, "<tool_response>": 268, "</tool_response>": 269,
}  # fmt: skip


@dataclass(frozen=True)
class Known:
    """What is expected of a checkpoint. ``sources`` names, by topic, where that comes from."""

    name: str
    config: KeyeConfig
    parameters: int
    limits: VisionLimits
    dialogue_ids: Mapping[str, int]
    frame_id: int
    sampling: Mapping[str, Any]
    own_code: bool
    """The checkpoint ships code of its own; without, the model is what this project's code says."""
    tells_when: bool
    """It can be asked when something is first seen in a video that is shown whole."""
    sources: Mapping[str, str] = field(default_factory=dict)

    def source(self, topic: str) -> str:
        """Where an expectation comes from."""
        return self.sources.get(topic, TRAINED_HERE)


def known_models() -> tuple[Known, ...]:
    """Keye-VL-2.0-30B-A3B and keye-tiny."""
    tiny_tokens = SpecialTokens(image=261, video=262, vision_start=259, vision_end=260)
    large = Known(
        KEYE_30B,
        keye_30b(),
        31_122_082_160,
        KEYE_2_LIMITS,
        _QWEN_IDS,
        151677,
        {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20},
        own_code=True,
        tells_when=True,
        sources={
            "sizes": PUBLISHED_COUNT, "rope": QUOTED_CONFIG, "sparse": f"{QUOTED_CONFIG}; {SERVING_CODE}",
            "norms": BASE_MODEL, "tokens": f"{BASE_MODEL}; {OLDER_KEYE}", "frame": OLDER_KEYE, "template": BASE_MODEL,
            "pixels": OLDER_KEYE, "pictures": SERVING_CODE, "sampling": f"{BASE_MODEL}; {OLDER_KEYE}",
            "indexer": SERVING_CODE, "weights": f"{PUBLISHED_COUNT}; {SERVING_CODE}", "vision": SERVING_CODE,
        },
    )  # fmt: skip
    small = Known(
        KEYE_TINY, keye_tiny(384, tiny_tokens), 15_251_648, KEYE_TINY_LIMITS, _TINY_IDS, 263, {"do_sample": False},
        own_code=False, tells_when=False,
    )  # fmt: skip
    return large, small


def recognise(config: Mapping[str, Any]) -> Known | None:
    """The known model whose width and depth a config.json tells; None for a shape that nothing is known of."""
    text = config.get("text_config")
    told = {**config, **(text if isinstance(text, Mapping) else {})}
    for one in known_models():
        if (told.get("hidden_size"), told.get("num_hidden_layers")) == (
            one.config.hidden_size,
            one.config.num_hidden_layers,
        ):
            return one
    return None
