"""What a model is made of and what it takes to run it: exact counts; a known name needs no weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from keyeloop.model_backend.keye.config import KeyeConfig
from keyeloop.model_backend.keye.layout import assign, published_shapes
from keyeloop.model_backend.keye.presets import KEYE_30B, KEYE_TINY, keye_30b
from keyeloop.model_backend.keye.weights import CheckpointFiles, weight_files
from keyeloop.runtime.errors import InputError

BF16_BYTES = 2
INDEX_SCALE_BYTES = 4
"""Served index keys are one e4m3 byte a value and one float32 scale a token and layer."""
USABLE_SHARE = 0.85
"""Part of a GPU's memory for weights and cache; the rest is for activations and the runtime."""
GIB = 1 << 30
GPUS = (
    ("RTX 4090", 24), ("RTX 5090", 32), ("L40S", 45), ("A100 80GB", 80), ("H100 80GB", 80), ("RTX PRO 6000", 96),
    ("H200", 140), ("B200", 180),
)  # fmt: skip
"""(name, GiB of memory as its driver reports it, about)."""


@dataclass(frozen=True)
class Part:
    """Parameters of one part of the model."""

    name: str
    parameters: int


@dataclass(frozen=True)
class Fit:
    """One kind of GPU, ``gpus`` of them sharing the model."""

    gpu: str
    memory_gib: int
    gpus: int
    free_bytes: int
    """Left on each for the cache once the weights lie there; negative when they do not fit."""
    context_tokens: int
    """Tokens of cache that fit, over all requests; 0 when the weights do not fit."""


@dataclass(frozen=True)
class ModelDescription:
    """Sizes of a model. Bytes are those of bfloat16 weights and keys and of the served index cache."""

    name: str
    folder: Path | None
    config: KeyeConfig
    parts: tuple[Part, ...]
    parameters: int
    active_parameters: int
    """Decoder parameters that one text token passes: all but the experts not chosen; embedding counted whole."""
    weight_bytes: int
    stored_bytes: int | None
    """Size of the weight files; None for a name."""
    kv_bytes_per_token: int
    index_bytes_per_token: int
    fits: tuple[Fit, ...]


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
    layers = config.num_hidden_layers
    kv = layers * 2 * config.num_key_value_heads * config.head_dim * BF16_BYTES
    index = layers * (config.indexer.head_dim + INDEX_SCALE_BYTES)
    return ModelDescription(
        name, folder, config, parts, total, total - vision - idle, total * BF16_BYTES, stored_bytes, kv, index,
        _fits(total, vision, kv, index, config.num_key_value_heads),
    )  # fmt: skip


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


def _fits(total: int, vision: int, kv: int, index: int, kv_heads: int) -> tuple[Fit, ...]:
    """Vision and index keys are on every GPU of a group, everything else is split; a group divides the key heads."""
    fits = []
    for gpu, memory_gib in GPUS:
        for gpus in (1, 2, 4):
            if kv_heads % gpus:
                continue
            weights = ((total - vision) // gpus + vision) * BF16_BYTES
            free = int(memory_gib * GIB * USABLE_SHARE) - weights
            fits.append(Fit(gpu, memory_gib, gpus, free, max(0, free) // (kv // gpus + index)))
    return tuple(fits)


def render_description(description: ModelDescription) -> RenderableType:
    """The description as tables for a rich console."""
    config = description.config
    sizes = Table(title=description.name, show_header=False)
    kv, index = description.kv_bytes_per_token, description.index_bytes_per_token
    rows = [
        ("parameters", f"{description.parameters:,}"),
        *((f"  {part.name}", f"{part.parameters:,}") for part in description.parts),
        ("active a text token", f"{description.active_parameters:,}"),
        ("weights in bfloat16", _bytes(description.weight_bytes)),
        ("cache a token", f"{kv + index:,} bytes (keys and values {kv:,}, index {index:,})"),
        ("decoder", f"{config.num_hidden_layers} layers x {config.hidden_size}, {config.num_attention_heads} query and "
                    f"{config.num_key_value_heads} key heads x {config.head_dim}"),
        ("experts", f"{config.num_experts} x {config.moe_intermediate_size}, {config.num_experts_per_tok} a token"),
        ("sparse attention", f"{config.indexer.topk} keys a token, chosen by {config.indexer.num_heads} heads x "
                             f"{config.indexer.head_dim}"),
        ("vision tower", f"{config.vision.num_hidden_layers} layers x {config.vision.hidden_size}, patches of "
                         f"{config.vision.patch_size} pixels"),
        ("context", f"{config.max_position_embeddings:,} tokens"),
    ]  # fmt: skip
    if description.stored_bytes is not None:
        rows.append(("weight files", f"{_bytes(description.stored_bytes)} in {description.folder}"))
    for label, value in rows:
        sizes.add_row(label, value)
    note = Text(f"Tokens of cache that fit, all requests together, bfloat16, {USABLE_SHARE:.0%} of memory used.")
    return Group(sizes, _gpu_table(description), note)


def _gpu_table(description: ModelDescription) -> Table:
    counts = sorted({fit.gpus for fit in description.fits})
    table = Table("GPU", "GiB", *(f"{count} GPU{'s' * (count > 1)}" for count in counts), title="What fits")
    for gpu, memory_gib in GPUS:
        fits = {fit.gpus: fit for fit in description.fits if fit.gpu == gpu}
        table.add_row(gpu, str(memory_gib), *(_room(fits[count]) for count in counts))
    return table


def _room(fit: Fit) -> str:
    return f"{fit.context_tokens:,} tokens" if fit.context_tokens else "too small"


def _bytes(count: int) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 10**9 else f"{count / 1e6:,.1f} MB"
