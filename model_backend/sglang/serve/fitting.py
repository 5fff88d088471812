"""Which GPUs hold a model, in the arithmetic that ``keyeloop serve`` plans with, and its sizes for people to read."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from keyeloop.model_backend.keye.describe import ModelDescription
from keyeloop.model_backend.sglang.serve.memory import DEFAULT_SHARE, IndexMode, Quantization, groups, need, token_bytes
from keyeloop.model_backend.sglang.serve.room import LEAST_CONTEXT

GIB = 1 << 30
TAKEN_BYTES = GIB // 2
"""Of an idle GPU, what its driver and display hold."""
MOST_GPUS = 4
GPUS = (
    ("RTX 4090", 24), ("RTX 5090", 32), ("L40S", 45), ("A100 80GB", 80), ("H100 80GB", 80), ("RTX PRO 6000", 96),
    ("H200", 140), ("B200", 180),
)  # fmt: skip
"""(name, GiB of memory as its driver reports it, about)."""


@dataclass(frozen=True)
class Fit:
    """One kind of GPU, ``gpus`` of them sharing the model."""

    gpu: str
    memory_gib: int
    gpus: int
    context_tokens: int
    """The largest context that ``keyeloop serve`` gives there; 0 when it does not start."""
    cache_tokens: int
    """All requests together."""


def fits(description: ModelDescription, *, quantization: Quantization = "none", index: IndexMode = "exact"
         ) -> tuple[Fit, ...]:  # fmt: skip
    """What idle GPUs of every known kind hold, alone and in groups, at the launcher's defaults."""
    found = []
    for gpu, memory_gib in GPUS:
        usable = int((memory_gib * GIB - TAKEN_BYTES) * DEFAULT_SHARE)
        for count in groups(description.config):
            if count > MOST_GPUS:
                continue
            needed = need(description, gpus=count, quantization=quantization, index=index)
            context = needed.context(usable, description.config.max_position_embeddings)
            holds = context >= LEAST_CONTEXT
            found.append(
                Fit(gpu, memory_gib, count, context if holds else 0, needed.cache_tokens(usable) if holds else 0)
            )
    return tuple(found)


def render_description(
    description: ModelDescription, *, quantization: Quantization = "none", index: IndexMode = "exact"
) -> RenderableType:
    """Sizes and what fits as tables for a rich console; both say the format of index keys that they count."""
    config = description.config
    exact, fp8 = (token_bytes(config, index=mode) for mode in ("exact", "fp8"))
    rows = [
        ("parameters", f"{description.parameters:,}"),
        *((f"  {part.name}", f"{part.parameters:,}") for part in description.parts),
        ("active a text token", f"{description.active_parameters:,}"),
        ("weights in bfloat16", _bytes(description.weight_bytes)),
        ("cache a token", f"{exact:,} bytes with exact index keys, {fp8:,} with fp8 ones"),
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
    sizes = Table(title=description.name, show_header=False)
    for label, value in rows:
        sizes.add_row(label, value)
    weights = "fp8, made from bfloat16 at load" if quantization == "fp8" else "bfloat16"
    note = (
        f"Tokens of cache, all requests together, as keyeloop serve plans them: weights in {weights}, index keys "
        f"{index}, {DEFAULT_SHARE:.0%} of an idle GPU's memory, pictures' embeddings counted. One request takes "
        f"{config.max_position_embeddings:,} at most."
    )
    table = _gpu_table(fits(description, quantization=quantization, index=index), f"What fits (index keys {index})")
    return Group(sizes, table, Text(note))


def _gpu_table(found: tuple[Fit, ...], title: str) -> Table:
    counts = sorted({fit.gpus for fit in found})
    table = Table("GPU", "GiB", *(f"{count} GPU{'s' * (count > 1)}" for count in counts), title=title)
    for gpu, memory_gib in GPUS:
        here = {fit.gpus: fit for fit in found if fit.gpu == gpu}
        table.add_row(gpu, str(memory_gib), *(_room(here[count]) for count in counts))
    return table


def _room(fit: Fit) -> str:
    return f"{fit.cache_tokens:,} tokens" if fit.cache_tokens else "too small"


def _bytes(count: int) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 10**9 else f"{count / 1e6:,.1f} MB"
