"""How pictures reach the model: preprocessor_config.json, and what the checkpoint's own processors say as text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from keyeloop.model_backend.keye.sizing import PIXELS_PER_TOKEN
from keyeloop.model_backend.verification.checkpoint import Checkpoint
from keyeloop.model_backend.verification.finding import Finding, judged
from keyeloop.model_backend.verification.known import OLDER_KEYE, SERVING_CODE, Known

PREPROCESS = "model_backend/keye/preprocess.py"
TEMPLATE = "model_backend/keye/template.py"
SETTINGS_FILE = "preprocessor_config.json"
RASTER = re.compile(r"0,\s*3,\s*5,\s*2,\s*1,\s*4,\s*6\b")
"""Axes that a processor swaps to cut patches row by row."""
MERGED = re.compile(r"0,\s*3,\s*6,\s*4,\s*7,\s*2,\s*1,\s*5,\s*8\b")
"""The same in groups of 2 x 2, as Qwen2-VL's."""
FRAME_LINE = re.compile(r"<\|frame\|>|frame_token|:\.\df|timestamp", re.IGNORECASE)
QUOTED_LINES = 3
QUOTED_CHARS = 100


def check_pictures(checkpoint: Checkpoint, known: Known | None) -> Iterator[Finding]:
    """Points 2 and 3."""
    told = checkpoint.json(SETTINGS_FILE)
    yield _frame_text(checkpoint, known)
    yield _patch_order(checkpoint, known)
    yield _compared("pixel-values", told, {"image_mean": [0.5] * 3, "image_std": [0.5] * 3},
                    known.source("pixels") if known else OLDER_KEYE)  # fmt: skip
    yield _compared("patch-size", told, {"patch_size": 14, "temporal_patch_size": 1},
                    known.source("pictures") if known else SERVING_CODE)  # fmt: skip
    yield _limits(told, known)


def _compared(key: str, told: Mapping[str, Any], wanted: Mapping[str, Any], source: str) -> Finding:
    found = {name: told.get(name) for name in wanted if told.get(name) is not None}
    off = {name: value for name, value in found.items() if value != wanted[name]}
    holds = False if off else True if len(found) == len(wanted) else None
    return judged(key, 3, holds, expected=_listed(wanted), found=_listed(off or found) or f"not in {SETTINGS_FILE}",
                  source=source, change=PREPROCESS)  # fmt: skip


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _limits(told: Mapping[str, Any], known: Known | None) -> Finding:
    """Smallest and largest still, in tokens of 28 x 28 pixels; the processor resizes again what is outside."""
    size = told.get("size")
    size = size if isinstance(size, Mapping) else {}
    low = told.get("min_pixels", size.get("shortest_edge"))
    high = told.get("max_pixels", size.get("longest_edge"))
    wanted = (known.limits.image_min_tokens, known.limits.image_max_tokens) if known else None
    found = tuple(value / PIXELS_PER_TOKEN for value in (low, high) if isinstance(value, int))
    holds = None if len(found) < 2 or wanted is None else found == wanted
    expected = f"stills of {wanted[0]:,} to {wanted[1]:,} tokens" if wanted else "a known model's"
    return judged("picture-limits", 3, holds, expected=expected,
                  found=f"{found[0]:,g} to {found[1]:,g}" if len(found) == 2 else f"not in {SETTINGS_FILE}",
                  source=known.source("pictures") if known else SERVING_CODE,
                  change="model_backend/keye/cost.py")  # fmt: skip


def _patch_order(checkpoint: Checkpoint, known: Known | None) -> Finding:
    code = "\n".join(checkpoint.code_like("image_processing", "processing").values())
    raster, merged = bool(RASTER.search(code)), bool(MERGED.search(code))
    holds = None if raster == merged else raster
    found = "rows of patches" if raster else "groups of 2 x 2 patches" if merged else "no processing code that tells it"
    if known is not None and not known.own_code and not code:
        holds, found = True, "no code of its own: ours trained it"
    return judged("patch-order", 3, holds, expected="patches in rows, each frame by itself", found=found,
                  source=known.source("pictures") if known else SERVING_CODE, change=PREPROCESS)  # fmt: skip


def _frame_text(checkpoint: Checkpoint, known: Known | None) -> Finding:
    """Code can write this text in many ways: its lines are quoted, and a server's token counts settle it."""
    code = checkpoint.code_like("processing")
    lines = [line.strip()[:QUOTED_CHARS] for text in code.values() for line in text.splitlines()
             if FRAME_LINE.search(line)]  # fmt: skip
    holds = None
    found = " | ".join(lines[:QUOTED_LINES]) or ("no processing_*.py" if not code else "its code names no frame mark")
    if known is not None and not known.own_code and not code:
        holds, found = True, "no code of its own: ours trained it"
    return judged("frame-text", 2, holds, found=found, change=TEMPLATE,
                  expected="one vision mark around a video, and <|frame|> with seconds (12.5) before each frame",
                  source=known.source("frame") if known else OLDER_KEYE)  # fmt: skip
