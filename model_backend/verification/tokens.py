"""Special tokens: the same in config.json, in the tokenizer and in the template that writes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from keyeloop.model_backend.verification.checkpoint import Checkpoint
from keyeloop.model_backend.verification.configuration import PRESETS
from keyeloop.model_backend.verification.finding import Finding, judged
from keyeloop.model_backend.verification.known import Known

TEMPLATE = "model_backend/keye/template.py"
KNOWN_IDS = "model_backend/verification/known.py"
CONFIGURED = (
    ("image-token", "<|image_pad|>", "image_token_id", "image"),
    ("video-token", "<|video_pad|>", "video_token_id", "video"),
    ("vision-start", "<|vision_start|>", "vision_start_token_id", "vision_start"),
    ("vision-end", "<|vision_end|>", "vision_end_token_id", "vision_end"),
)
"""Key, name in the tokenizer, name in config.json, field of our config."""


def check_tokens(checkpoint: Checkpoint, known: Known | None) -> Iterator[Finding]:
    """The rest of point 1."""
    ids = checkpoint.token_ids
    source = known.source("tokens") if known else "the names that our template writes"
    for key, name, setting, field in CONFIGURED:
        wanted = getattr(known.config.tokens, field) if known else None
        told = checkpoint.setting(setting)
        have = None if ids is None else ids.get(name)
        yield judged(key, 1, _same(wanted, told, have, ids), expected=f"{name}{_number(wanted)}",
                     found=f"{setting} {_or_missing(told)}, {_in_tokenizer(ids, have)}", source=source,
                     change=TEMPLATE if ids is not None and have is None else PRESETS)  # fmt: skip
    yield _frame(ids, known)
    yield _dialogue(ids, known, source)
    yield _ending(checkpoint, ids, source)


def _same(wanted: int | None, told: Any, have: int | None, ids: Mapping[str, int] | None) -> bool | None:
    """Missing anywhere, or three numbers that are not one, differs; a tokenizer that is not there leaves it open."""
    if told is None or (ids is not None and have is None):
        return False
    if any(number is not None and number != told for number in (wanted, have)):
        return False
    return True if have is not None and wanted is not None else None


def _number(wanted: int | None) -> str:
    return "" if wanted is None else f" is {wanted}"


def _or_missing(value: Any) -> str:
    return "missing" if value is None else str(value)


def _in_tokenizer(ids: Mapping[str, int] | None, have: int | None) -> str:
    return "no tokenizer file" if ids is None else f"tokenizer {_or_missing(have)}"


def _frame(ids: Mapping[str, int] | None, known: Known | None) -> Finding:
    have = None if ids is None else ids.get("<|frame|>")
    wanted = known.frame_id if known else None
    holds = None if ids is None else False if have is None else None if wanted is None else have == wanted
    return judged("frame-token", 1, holds, expected=f"<|frame|>{_number(wanted)}", found=_in_tokenizer(ids, have),
                  source=known.source("frame") if known else "the names that our template writes",
                  change=TEMPLATE if have is None else KNOWN_IDS)  # fmt: skip


def _dialogue(ids: Mapping[str, int] | None, known: Known | None, source: str) -> Finding:
    """Marks of turns, thinking and calls; each has to be one token."""
    wanted = dict(known.dialogue_ids) if known else {}
    names = wanted or dict.fromkeys(("<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>"))
    absent = [name for name in names if ids is not None and name not in ids]
    off = [f"{name} {ids[name]}" for name, number in wanted.items() if ids and name in ids and ids[name] != number]
    holds = None if ids is None or not (wanted or absent) else not absent and not off
    found = "no tokenizer file" if ids is None else "the same"
    if absent or off:
        found = "; ".join(
            [f"missing: {', '.join(absent)}"] * bool(absent) + [f"other ids: {', '.join(off)}"] * bool(off)
        )
    return judged("dialogue-tokens", 1, holds, expected="turn, thinking, call and result marks are single tokens",
                  found=found, source=source, change=TEMPLATE if absent else KNOWN_IDS)  # fmt: skip


def _ending(checkpoint: Checkpoint, ids: Mapping[str, int] | None, source: str) -> Finding:
    """A reply ends with ``<|im_end|>``: servers take that from these files."""
    told: Any = checkpoint.json("generation_config.json").get("eos_token_id", checkpoint.setting("eos_token_id"))
    ends = [told] if isinstance(told, int) else list(told) if isinstance(told, list) else []
    name = checkpoint.json("tokenizer_config.json").get("eos_token")
    name = name.get("content") if isinstance(name, dict) else name
    end = None if ids is None else ids.get("<|im_end|>")
    holds = None if not ends and name is None else (end in ends if ends else name == "<|im_end|>")
    holds = None if end is None and ends else holds
    return judged("end-of-turn", 1, holds, expected=f"<|im_end|>{_number(end)} ends a reply",
                  found=f"eos_token_id {ends or 'not said'}, eos_token {name or 'not said'}", source=source,
                  change="model_backend/local/rules.py")  # fmt: skip
