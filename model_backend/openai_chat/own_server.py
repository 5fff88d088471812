"""What keyeloop's plugin says of a server that runs it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from keyeloop.model_backend.keye.cost import VisionLimits
from keyeloop.model_backend.served.failures import Refused
from keyeloop.model_backend.served.sending import Sender
from keyeloop.model_backend.sglang.shared_store import shared_store
from keyeloop.runtime.errors import ConfigError

ENGINE = "sglang"
"""What SGLang lists as the owner of its models."""
STATUS_PATH, STATUS = "/server_info", "keyeloop"


@dataclass(frozen=True)
class OwnServer:
    """It takes clips as one part and replies as the model wrote them."""

    media_store: Path | None
    """The folder of pictures that it reads by their sha256, where that is a folder here too."""
    limits: VisionLimits | None
    """Its model's picture arithmetic."""


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
    return OwnServer(shared_store(status), _limits(status.get("limits")))


def _limits(told: Any) -> VisionLimits | None:
    names = [field.name for field in fields(VisionLimits)]
    if not isinstance(told, dict) or not all(isinstance(told.get(name), int) for name in names):
        return None
    try:
        return VisionLimits(**{name: told[name] for name in names})
    except ConfigError:
        return None
