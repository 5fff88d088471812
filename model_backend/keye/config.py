"""What a Keye checkpoint says of itself: ``config.json``, read strictly.

The file is flat: decoder fields and ``sa_config`` (the sparse attention) at the top level, only ``vision_config``
nested. A ``text_config`` is tried first where there is one. What would silently change the model when absent (rope
theta, indexer sizes, special tokens) has no default here: the shipped serving code falls back to other values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keyeloop.runtime.errors import ConfigError, InputError

_ABSENT = object()
_NO_DEFAULT = "missing; it has no default, take it from the checkpoint's own config.json"


@dataclass(frozen=True)
class SpecialTokens:
    """Token ids that the model's layout depends on."""

    image: int
    video: int
    vision_start: int
    vision_end: int
    fast_video: int | None = None
    """Never used by 2.0, whose frames are all slow."""

    @property
    def pictures(self) -> tuple[int, int]:
        """Ids whose embeddings are replaced by picture features."""
        return (self.image, self.video)


@dataclass(frozen=True)
class IndexerConfig:
    """Lightning indexer: ``num_heads`` query heads against one shared key head; each token attends to ``topk`` keys."""

    num_heads: int
    head_dim: int
    topk: int
    query_chunk: int = 512
    """Most queries scored at once; bounds memory, never changes a result."""


@dataclass(frozen=True)
class VisionConfig:
    """SigLIP-style tower over patches of ``patch_size`` pixels, with a learned square position table."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    image_size: int
    patch_size: int
    spatial_merge_size: int = 2
    num_channels: int = 3
    layer_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    packing_positions: int = 32768
    """Rows of the published ``packing_position_embedding``, which no forward pass reads; 0 leaves it out."""

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def grid(self) -> int:
        """Side of the position table in patches."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class KeyeConfig:
    """Everything that decides the architecture. Every decoder layer is a mixture of experts."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    moe_intermediate_size: int
    num_experts: int
    num_experts_per_tok: int
    vocab_size: int
    rope_theta: float
    mrope_section: tuple[int, int, int]
    max_position_embeddings: int
    indexer: IndexerConfig
    vision: VisionConfig
    tokens: SpecialTokens
    rms_norm_eps: float = 1e-6
    norm_topk_prob: bool = True

    def __post_init__(self) -> None:
        """Check that the numbers fit each other. Raises ConfigError naming the key."""
        half, index_half = self.head_dim // 2, self.indexer.head_dim // 2
        _require(
            self.num_attention_heads % self.num_key_value_heads == 0,
            "num_key_value_heads",
            f"{self.num_key_value_heads} must divide num_attention_heads {self.num_attention_heads}",
        )
        _require(
            len(self.mrope_section) == 3 and sum(self.mrope_section) == half,
            "rope_scaling.mrope_section",
            f"{list(self.mrope_section)} must be three numbers that sum to head_dim / 2 = {half}",
        )
        _require(
            all(s * index_half % half == 0 for s in self.mrope_section),
            "sa_config.indexer_head_dim",
            f"{self.indexer.head_dim} does not scale mrope_section {list(self.mrope_section)} to whole numbers",
        )
        _require(
            1 <= self.num_experts_per_tok <= self.num_experts,
            "num_experts_per_tok",
            f"{self.num_experts_per_tok} must lie in 1..num_experts = {self.num_experts}",
        )
        _require(self.indexer.topk >= 1, "sa_config.topk", f"{self.indexer.topk} must be at least 1")
        _require(self.vision.hidden_size % (4 * self.vision.num_attention_heads) == 0,
                 "vision_config.hidden_size", f"{self.vision.hidden_size} must be a multiple of 4 x "
                 f"num_attention_heads {self.vision.num_attention_heads}")  # fmt: skip

    @property
    def index_mrope_section(self) -> tuple[int, ...]:
        """The indexer's rope sections: the main ones scaled to its head size ([16,24,24] of 128 to [8,12,12] of 64)."""
        return tuple(s * self.indexer.head_dim // self.head_dim for s in self.mrope_section)

    @staticmethod
    def from_folder(folder: Path) -> KeyeConfig:
        """Read ``folder/config.json``. Raises InputError without the file, ConfigError for what it says."""
        path = folder / "config.json"
        if not folder.is_dir():
            raise InputError(f"{folder}: no such model folder; give a folder with config.json and "
                             "*.safetensors files")  # fmt: skip
        if not path.is_file():
            raise InputError(f"{folder}: no config.json; needed are config.json, tokenizer.json, *.safetensors")
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as problem:
            raise ConfigError(f"{path}: not JSON ({problem}); download the file again") from None
        if not isinstance(data, dict):
            raise ConfigError(f"{path}: holds a {type(data).__name__}, not an object; download the file again")
        return KeyeConfig.from_dict(data)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> KeyeConfig:
        """Read the published layout. Raises ConfigError naming the key that is missing or not supported."""
        return _Reader(data).config()

    def to_dict(self) -> dict[str, Any]:
        """The published layout; ``from_dict`` reads it back equal."""
        index, vision, tokens = self.indexer, self.vision, self.tokens
        written: dict[str, Any] = {
            "architectures": ["KeyeVL2MoeForConditionalGeneration"], "model_type": "KeyeVL2",
            "hidden_size": self.hidden_size, "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads, "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim, "moe_intermediate_size": self.moe_intermediate_size,
            "num_experts": self.num_experts, "num_experts_per_tok": self.num_experts_per_tok,
            "norm_topk_prob": self.norm_topk_prob, "vocab_size": self.vocab_size, "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta, "max_position_embeddings": self.max_position_embeddings,
            "rope_scaling": {"rope_type": "default", "mrope_section": list(self.mrope_section)},
            "hidden_act": "silu", "attention_bias": False, "tie_word_embeddings": False,
            "sa_config": {"indexer_num_heads": index.num_heads, "indexer_head_dim": index.head_dim,
                          "indexer_num_kv_heads": 1, "topk": index.topk, "q_chunk_size": index.query_chunk},
            "image_token_id": tokens.image, "video_token_id": tokens.video,
            "vision_start_token_id": tokens.vision_start, "vision_end_token_id": tokens.vision_end,
            "vision_config": {
                "hidden_size": vision.hidden_size, "intermediate_size": vision.intermediate_size,
                "num_hidden_layers": vision.num_hidden_layers, "num_attention_heads": vision.num_attention_heads,
                "image_size": vision.image_size, "patch_size": vision.patch_size, "num_channels": vision.num_channels,
                "spatial_merge_size": vision.spatial_merge_size, "layer_norm_eps": vision.layer_norm_eps,
                "rope_theta": vision.rope_theta, "packing_positions": vision.packing_positions,
                "hidden_act": "gelu_pytorch_tanh",
            },
        }  # fmt: skip
        if tokens.fast_video is not None:
            written["fast_video_token_id"] = tokens.fast_video
        return written


def _require(holds: bool, key: str, problem: str) -> None:
    if not holds:
        raise ConfigError(f"config.json: {key}: {problem}")


class _Reader:
    """Looks keys up, ``text_config`` first, and refuses what this implementation would compute wrongly."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data = data
        text = data.get("text_config")
        self._text: Mapping[str, Any] = text if isinstance(text, Mapping) else {}

    def config(self) -> KeyeConfig:
        self._refuse_unsupported()
        theta, section = self._rope()
        return KeyeConfig(
            hidden_size=self._int("hidden_size"), num_hidden_layers=self._int("num_hidden_layers"),
            num_attention_heads=self._int("num_attention_heads"),
            num_key_value_heads=self._int("num_key_value_heads"), head_dim=self._int("head_dim"),
            moe_intermediate_size=self._int("moe_intermediate_size"), num_experts=self._int("num_experts"),
            num_experts_per_tok=self._int("num_experts_per_tok"), vocab_size=self._int("vocab_size"),
            rope_theta=theta, mrope_section=section, max_position_embeddings=self._int("max_position_embeddings"),
            rms_norm_eps=float(self._find("rms_norm_eps", 1e-6)),
            norm_topk_prob=bool(self._find("norm_topk_prob", True)),
            indexer=self._indexer(), vision=self._vision(), tokens=self._tokens(),
        )  # fmt: skip

    def _indexer(self) -> IndexerConfig:
        sa = self._section("sa_config")
        kv_heads = _int_in(sa, "indexer_num_kv_heads", "sa_config", 1)
        _require(kv_heads == 1, "sa_config.indexer_num_kv_heads", f"{kv_heads} is not supported, only 1")
        return IndexerConfig(
            num_heads=_int_in(sa, "indexer_num_heads", "sa_config"),
            head_dim=_int_in(sa, "indexer_head_dim", "sa_config"),
            topk=_int_in(sa, "topk", "sa_config"),
            query_chunk=_int_in(sa, "q_chunk_size", "sa_config", 512),
        )

    def _vision(self) -> VisionConfig:
        vision = self._section("vision_config")
        act = vision.get("hidden_act", "gelu_pytorch_tanh")
        _require(act == "gelu_pytorch_tanh", "vision_config.hidden_act", f"{act!r} is not supported")
        _require(not vision.get("deepstack_visual_indexes"), "vision_config.deepstack_visual_indexes",
                 "features from inner vision layers are not supported")  # fmt: skip
        required = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        sizes = {name: _int_in(vision, name, "vision_config") for name in (*required, "image_size", "patch_size")}
        return VisionConfig(
            **sizes, spatial_merge_size=_int_in(vision, "spatial_merge_size", "vision_config", 2),
            num_channels=_int_in(vision, "num_channels", "vision_config", 3),
            layer_norm_eps=float(vision.get("layer_norm_eps", 1e-6)),
            rope_theta=float(vision.get("rope_theta", 10000.0)),
            packing_positions=_int_in(vision, "packing_positions", "vision_config", 32768),
        )  # fmt: skip

    def _tokens(self) -> SpecialTokens:
        fast = self._find("fast_video_token_id", None)
        return SpecialTokens(
            image=self._int("image_token_id"), video=self._int("video_token_id"),
            vision_start=self._int("vision_start_token_id"), vision_end=self._int("vision_end_token_id"),
            fast_video=None if fast is None else int(fast),
        )  # fmt: skip

    def _rope(self) -> tuple[float, tuple[int, int, int]]:
        """Theta and sections, by transformers 4 names (``rope_theta``, ``rope_scaling``) or 5 (``rope_parameters``)."""
        scaling = self._find("rope_scaling", None) or {}
        parameters = self._find("rope_parameters", None) or {}
        thetas = {float(t) for t in (self._find("rope_theta", None), parameters.get("rope_theta")) if t is not None}
        _require(bool(thetas), "rope_theta", _NO_DEFAULT)
        _require(len(thetas) == 1, "rope_theta", f"given twice, as {sorted(thetas)}")
        section: Any = scaling.get("mrope_section") or parameters.get("mrope_section")
        _require(isinstance(section, (list, tuple)) and len(section) == 3, "rope_scaling.mrope_section",
                 f"must be three numbers, is {section!r}")  # fmt: skip
        kinds = (scaling.get("rope_type") or scaling.get("type"), parameters.get("rope_type"))
        for kind in kinds:
            _require(kind in (None, "default", "mrope"), "rope_scaling.rope_type", f"{kind!r} is not supported")
        _require(not (scaling.get("mrope_interleaved") or parameters.get("mrope_interleaved")),
                 "rope_scaling.mrope_interleaved", "Keye's sections are contiguous")  # fmt: skip
        return thetas.pop(), (int(section[0]), int(section[1]), int(section[2]))

    def _refuse_unsupported(self) -> None:
        wanted = {"hidden_act": "silu", "attention_bias": False, "tie_word_embeddings": False,
                  "decoder_sparse_step": 1, "mlp_only_layers": [], "quantization_config": None}  # fmt: skip
        for key, value in wanted.items():
            found = self._find(key, value)
            same = found == value or (found is None and not value)
            _require(same, key, f"{found!r} is not supported, only {value!r}")

    def _section(self, key: str) -> Mapping[str, Any]:
        found = self._find(key, None)
        _require(isinstance(found, Mapping), key, "missing; without it this is no Keye-VL-2.0 checkpoint")
        return found  # type: ignore[no-any-return]

    def _int(self, key: str) -> int:
        return _int_in({key: self._find(key, None)}, key, "")

    def _find(self, key: str, default: Any) -> Any:
        found = self._text.get(key, _ABSENT)
        return self._data.get(key, default) if found is _ABSENT else found


def _int_in(mapping: Mapping[str, Any], key: str, where: str, default: int | None = None) -> int:
    value = mapping.get(key)
    value = default if value is None else value
    name = f"{where}.{key}" if where else key
    _require(value is not None, name, _NO_DEFAULT)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError(f"config.json: {name}: must be a whole number of 0 or more, is {value!r}")
    return value
