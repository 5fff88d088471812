"""What keyeloop's plugin says of a server that runs it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from keyeloop.model_backend.base import Request
from keyeloop.model_backend.keye.cost import VisionLimits
from keyeloop.model_backend.served.failures import Refused
from keyeloop.model_backend.served.sending import Sender
from keyeloop.model_backend.sglang.shared_store import shared_store
from keyeloop.runtime.content import Usage
from keyeloop.runtime.errors import CheckpointError, ConfigError

ENGINE = "sglang"
"""What SGLang lists as the owner of its models."""
STATUS_PATH, STATUS = "/server_info", "keyeloop"
TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class OwnServer:
    """It takes clips as one part and replies as the model wrote them."""

    media_store: Path | None
    """The folder of pictures that it reads by their sha256, where that is a folder here too."""
    limits: VisionLimits | None
    """Its model's picture arithmetic."""
    folder: Path | None = None
    """Of its tokenizer, where the server says so; it may be another machine's."""


async def own_server(sender: Sender, listed: Mapping[str, Any]) -> OwnServer | None:
    """Ask an SGLang server whether it runs the plugin; None for every other server. ``listed`` is its entry."""
    if listed.get("owned_by") != ENGINE:
        return None
    try:
        told = json.loads(await sender.get(STATUS_PATH, beside="/v1"))
    except (Refused, ValueError):
        return None
    states = told.get("internal_states") if isinstance(told, dict) else None
    first = states[0] if isinstance(states, list) and states and isinstance(states[0], dict) else {}
    status = first.get(STATUS)
    if not isinstance(status, dict) or status.get("clips") is not True or status.get("raw_replies") is not True:
        return None
    folder = told.get("tokenizer_path") or told.get("model_path")
    where = Path(folder) if isinstance(folder, str) and folder else None
    return OwnServer(shared_store(status), _limits(status.get("limits")), where)


def exact_count(folder: Path) -> Callable[[Request], Usage] | None:
    """Counts requests as a server with the tokenizer of ``folder`` does; None where that is not here or not readable.

    What it gives raises BackendError for a picture whose sides are no multiples of 28 pixels.
    """
    if not (folder / TOKENIZER).is_file():
        return None
    try:
        from keyeloop.model_backend.keye.tokenizer import KeyeTokenizer
        from keyeloop.model_backend.sglang.native.prompt import NativePrompts

        prompts = NativePrompts(KeyeTokenizer(folder / TOKENIZER))
    except (ModuleNotFoundError, CheckpointError):
        return None
    return lambda request: prompts.build(request).usage


def _limits(told: Any) -> VisionLimits | None:
    names = [field.name for field in fields(VisionLimits)]
    if not isinstance(told, dict) or not all(isinstance(told.get(name), int) for name in names):
        return None
    try:
        return VisionLimits(**{name: told[name] for name in names})
    except ConfigError:
        return None
