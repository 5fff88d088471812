"""The built-in tools as keye-tiny was taught them; a test holds this copy against the real ones."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from keyeloop.runtime.content import ToolSpec

SPECS = Path(__file__).with_name("tool_specs.json")


@lru_cache(maxsize=1)
def builtin_specs() -> tuple[ToolSpec, ...]:
    """``clip_video``, ``zoom``, ``python`` and ``web_search``, in the order in which a run offers them."""
    return tuple(ToolSpec(**entry) for entry in json.loads(SPECS.read_text()))
