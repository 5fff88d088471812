"""config.json and generation_config.json against the known values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from keyeloop.model_backend.keye.config import KeyeConfig
from keyeloop.model_backend.verification.checkpoint import Checkpoint
from keyeloop.model_backend.verification.finding import Finding, judged
from keyeloop.model_backend.verification.known import BASE_MODEL, SERVING_CODE, Known
from keyeloop.runtime.errors import ConfigError

PRESETS = "model_backend/keye/presets.py"
READER = "model_backend/keye/config.py"
SIZES = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "moe_intermediate_size", "num_experts", "num_experts_per_tok", "max_position_embeddings",
)  # fmt: skip
VISION_SIZES = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size",
    "spatial_merge_size",
)  # fmt: skip


def check_configuration(checkpoint: Checkpoint, known: Known | None) -> Iterator[Finding]:
    """Point 1 but for the tokens, and points 5, 7 and 8."""
    yield from _sizes(checkpoint, known)
    yield from _rope(checkpoint, known)
    yield from _norms(checkpoint, known)
    yield _inner_layers(checkpoint, known)
    yield _chunks(checkpoint, known)
    yield _sampling(checkpoint, known)


def check_readable(checkpoint: Checkpoint, before: tuple[Finding, ...]) -> Iterator[Finding]:
    """Whether our reader takes config.json; left out where something found ``before`` tells why it does not."""
    try:
        KeyeConfig.from_dict(checkpoint.config)
        problem = ""
    except ConfigError as error:
        problem = str(error)
    if not problem or all(one.state != "different" for one in before):
        yield judged("config-reader", 1, not problem, expected="our reader takes every setting",
                     found=problem or "it does", source="what our modules compute", change=READER)  # fmt: skip


def _sizes(checkpoint: Checkpoint, known: Known | None) -> Iterator[Finding]:
    wanted = known.config if known else None
    yield _compared(
        "decoder-shape", {name: getattr(wanted, name) for name in SIZES} if wanted else None,
        {name: checkpoint.setting(name) for name in SIZES}, known, "sizes")  # fmt: skip
    yield _compared(
        "vocabulary", {"vocab_size": wanted.vocab_size} if wanted else None,
        {"vocab_size": checkpoint.setting("vocab_size")}, known, "sizes")  # fmt: skip
    sparse = ("indexer_num_heads", "indexer_head_dim", "indexer_num_kv_heads", "topk")
    index = wanted.indexer if wanted else None
    yield _compared(
        "sparse-attention", dict(zip(sparse, (index.num_heads, index.head_dim, 1, index.topk), strict=True))
        if index else None, {name: checkpoint.setting(name, "sa_config") for name in sparse}, known, "sparse",
    )  # fmt: skip
    vision = wanted.vision if wanted else None
    yield _compared(
        "vision-shape", {name: getattr(vision, name) for name in VISION_SIZES} if vision else None,
        {name: checkpoint.setting(name, "vision_config") for name in VISION_SIZES}, known, "vision",
        absent={"spatial_merge_size": 2})  # fmt: skip


def _compared(
    key: str,
    wanted: Mapping[str, Any] | None,
    told: Mapping[str, Any],
    known: Known | None,
    topic: str,
    absent: Mapping[str, Any] | None = None,
) -> Finding:
    """Every value equal; one that is missing differs, unless ``absent`` says what it then is."""
    found = {name: (absent or {}).get(name) if value is None else value for name, value in told.items()}
    source = known.source(topic) if known else ""
    if wanted is None:
        missing = [name for name, value in found.items() if value is None]
        return judged(key, 1, False if missing else None, expected="a known model's sizes",
                      found=f"missing: {', '.join(missing)}" if missing else _listed(found),
                      source=source or "our reader needs it", change=READER if missing else PRESETS)  # fmt: skip
    off = {name: value for name, value in found.items() if value != wanted[name]}
    return judged(key, 1, not off, expected=_listed({name: wanted[name] for name in off} or wanted),
                  found=_listed(off) if off else "the same", source=source, change=PRESETS)  # fmt: skip


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {'missing' if value is None else value}" for name, value in values.items())


def _rope(checkpoint: Checkpoint, known: Known | None) -> Iterator[Finding]:
    told = {
        name: value for name, value in (("rope_theta", checkpoint.setting("rope_theta")),
                                        ("rope_parameters", checkpoint.setting("rope_theta", "rope_parameters")))
        if value is not None
    }  # fmt: skip
    wanted = known.config.rope_theta if known else None
    values = {float(value) for value in told.values() if isinstance(value, int | float)}
    source = known.source("rope") if known else "no fallback is safe: the serving code's own are 1e6 and 8e6"
    yield judged(
        "rope-theta", 1, False if len(values) != 1 else None if wanted is None else values == {wanted},
        expected="given once" if wanted is None else f"{wanted:,.0f}",
        found=", ".join(f"{value:,} as {name}" for name, value in told.items()) or "missing", source=source,
        change=PRESETS if values else READER)  # fmt: skip
    section = checkpoint.setting("mrope_section", "rope_scaling") or checkpoint.setting(
        "mrope_section", "rope_parameters"
    )
    sections = list(known.config.mrope_section) if known else None
    yield judged("rope-sections", 1, False if not section else None if sections is None else section == sections,
                 expected="given" if sections is None else f"{sections} (time, height, width)",
                 found=str(section or "missing"), source=source, change=PRESETS if section else READER)  # fmt: skip


def _norms(checkpoint: Checkpoint, known: Known | None) -> Iterator[Finding]:
    source = known.source("norms") if known else BASE_MODEL
    for key, name, wanted in (("norm-epsilon", "rms_norm_eps", 1e-6), ("expert-weights", "norm_topk_prob", True)):
        found = checkpoint.setting(name)
        yield judged(key, 1, None if found is None else found == wanted, expected=f"{name} {wanted}",
                     found=f"not said; {wanted} is taken" if found is None else str(found), source=source,
                     change=READER)  # fmt: skip


def _inner_layers(checkpoint: Checkpoint, known: Known | None) -> Finding:
    found = checkpoint.setting("deepstack_visual_indexes", "vision_config")
    return judged("inner-vision-layers", 8, not found, expected="none (no deepstack)",
                  found=f"deepstack_visual_indexes {found}" if found else "none",
                  source=known.source("vision") if known else SERVING_CODE,
                  change="model_backend/keye/vision.py")  # fmt: skip


def _chunks(checkpoint: Checkpoint, known: Known | None) -> Finding:
    """Ours bound memory and never change a result; the reference code's are read, where it is there."""
    size = checkpoint.setting("q_chunk_size", "sa_config")
    code = "\n".join(checkpoint.code_like("modeling").values())
    holds = None
    found = f"q_chunk_size {size}"
    if known is not None and not known.own_code:
        holds = size == known.config.indexer.query_chunk
    elif "q_chunk_size" in code:
        holds = "-inf" in code or "masked_fill" in code or "finfo" in code
        found += "; its code cuts queries into chunks" + (" and masks what is not chosen" if holds else "")
    return judged("chunks", 7, holds, expected="they bound memory and change no result", found=found,
                  source="our reference, where any chunk size gives the same sets",
                  change="model_backend/keye/sparse.py")  # fmt: skip


def _sampling(checkpoint: Checkpoint, known: Known | None) -> Finding:
    told = checkpoint.json("generation_config.json")
    wanted = known.sampling if known else {}
    found = {name: told.get(name) for name in wanted}
    return judged("sampling", 5, None if not told or not wanted else found == dict(wanted),
                  expected=_listed(wanted) or "a known model's", found=_listed(found) if told else "no file tells it",
                  source=known.source("sampling") if known else "", change="runtime/config.py")  # fmt: skip
