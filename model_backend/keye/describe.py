"""What a model is made of: exact counts; a known name needs no weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from keyeloop.model_backend.keye.config import KeyeConfig
from keyeloop.model_backend.keye.layout import assign, published_shapes
from keyeloop.model_backend.keye.presets import KEYE_30B, KEYE_TINY, keye_30b
from keyeloop.model_backend.keye.weights import CheckpointFiles, weight_files
from keyeloop.runtime.errors import InputError

BF16_BYTES = 2


@dataclass(frozen=True)
class Part:
    """Parameters of one part of the model."""

    name: str
    parameters: int


@dataclass(frozen=True)
class ModelDescription:
    """Sizes of a model. What it takes to serve it is told by :mod:`keyeloop.model_backend.sglang.serve.memory`."""

    name: str
    folder: Path | None
    config: KeyeConfig
    parts: tuple[Part, ...]
    parameters: int
    active_parameters: int
    """Decoder parameters that one text token passes: all but the experts not chosen; embedding counted whole."""
    weight_bytes: int
    """In bfloat16."""
    stored_bytes: int | None
    """Size of the weight files; None for a name."""


def describe(name_or_path: str | Path) -> ModelDescription:
    """Describe ``keye-vl-2.0-30b-a3b``, ``keye-tiny`` or a model folder.

    A folder's weights are checked by name and shape, not read. Raises InputError for a name or folder that is not
    there or has no weights, ConfigError for its config.json, CheckpointError for weights that do not fit it.
    """
    if str(name_or_path) == KEYE_30B:
        return describe_config(KEYE_30B, keye_30b())
    tiny = str(name_or_path) == KEYE_TINY
    folder = Path(__file__).parent.parent / "keye_tiny" if tiny else Path(name_or_path)
    if not folder.exists():
        raise InputError(f"{name_or_path}: no such model; give {KEYE_30B}, {KEYE_TINY} or a folder with config.json "
                         "and *.safetensors")  # fmt: skip
    if tiny and not any(folder.glob("*.safetensors")):
        raise InputError(f"{folder} holds no weights of {KEYE_TINY}: install keyeloop again, with its data files")
    return describe_config(KEYE_TINY if tiny else folder.name, KeyeConfig.from_folder(folder), folder)


def describe_config(name: str, config: KeyeConfig, folder: Path | None = None) -> ModelDescription:
    """Describe a configuration, and the weights of ``folder`` where there is one; raises as :func:`describe` does."""
    shapes = published_shapes(config)
    stored_bytes = None
    if folder is not None:
        assign(shapes, CheckpointFiles(folder).stored, str(folder))
        stored_bytes = sum(path.stat().st_size for path in weight_files(folder))
    parts = _parts(shapes)
    total = sum(part.parameters for part in parts)
    vision = sum(part.parameters for part in parts if part.name in ("vision tower", "projector"))
    experts = next(part.parameters for part in parts if part.name == "experts")
    idle = experts // config.num_experts * (config.num_experts - config.num_experts_per_tok)
    return ModelDescription(name, folder, config, parts, total, total - vision - idle, total * BF16_BYTES, stored_bytes)


def _parts(shapes: dict[str, tuple[int, ...]]) -> tuple[Part, ...]:
    sums: dict[str, int] = {}
    for name, shape in shapes.items():
        count = 1
        for side in shape:
            count *= side
        part = _part_of(name)
        sums[part] = sums.get(part, 0) + count
    return tuple(Part(name, count) for name, count in sums.items())


def _part_of(name: str) -> str:
    for piece, part in (("visual.", "vision tower"), ("mlp_AR.", "projector"), (".experts.", "experts"),
                        (".sa_indexer.", "indexer"), (".self_attn.", "attention"), (".gate.", "routers"),
                        ("embed_tokens", "token embedding"), ("lm_head", "output head")):  # fmt: skip
        if piece in name:
            return part
    return "norms"
