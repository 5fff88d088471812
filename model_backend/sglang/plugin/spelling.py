"""Names that SGLang 0.5.17 and its later releases spell differently, each looked up where the release has it.

Everything else that the plugin imports is the same in 0.5.17, 0.5.21 and 0.5.23.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

CHOICES = ("sglang.srt.arg_groups.choices", "sglang.srt.server_args")
"""Where the names of attention backends are kept: later releases, then 0.5.17."""
OVERRIDES = ("sglang.srt.arg_groups.model_override_base", "sglang.srt.arg_groups.overrides")
"""Where a model declares its own defaults: later releases, then 0.5.17."""


def add_attention_backend_choices(names: list[str]) -> None:
    """Let ``--attention-backend`` take these names."""
    _find("add_attention_backend_choices", CHOICES)(names)


def register_model_override(architecture: str) -> Callable[[Callable[..., dict[str, Any]]], Any]:
    """Decorator of a function ``(server_args, hf_config) -> settings`` that a model's server starts with."""
    return _find("register_model_override", OVERRIDES)(architecture)  # type: ignore[no-any-return]


def _find(name: str, places: tuple[str, ...]) -> Any:
    for place in places:
        try:
            found = getattr(import_module(place), name, None)
        except ModuleNotFoundError:
            continue
        if found is not None:
            return found
    raise ImportError(f"this SGLang has no {name} in {' or '.join(places)}; keyeloop knows 0.5.17, 0.5.21 and 0.5.23")
