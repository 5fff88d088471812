"""Calls held to their tool's schema while they are drawn, by SGLang's own grammars."""

from __future__ import annotations

import json
from collections.abc import Sequence

from keyeloop.model_backend.served.failures import Refused
from keyeloop.model_backend.served.remembered import Remembered
from keyeloop.model_backend.toolcalls import CALL_CLOSE, CALL_OPEN
from keyeloop.runtime.content import ToolSpec

KEPT_TAGS = 64
INVALID = 400
"""Status of a request with a grammar that the server cannot compile, or without any."""


class HeldCalls:
    """The structural tags of sets of tools. Threads may share it.

    A tag changes nothing that the model sees: text outside of calls stays free, and from ``<tool_call>`` on only the
    name of a tool, arguments of its schema and the closing mark can be drawn.
    """

    def __init__(self, hold: bool = True) -> None:
        """Without ``hold`` nothing is held to anything."""
        self.holds = hold
        self._tags: Remembered[str] = Remembered(KEPT_TAGS)
        self._refused: set[str] = set()

    def tag(self, tools: Sequence[ToolSpec]) -> str | None:
        """What ``structural_tag`` takes for these tools, as JSON; None without tools, or where it was refused."""
        if not tools or not self.holds:
            return None
        tag = self._tags.get((tools,), lambda: structural_tag(tools))
        return None if tag in self._refused else tag

    def refused(self, tag: str | None, error: Refused) -> bool:
        """Whether ``error`` is the server's about this very tag; it is then not given out again."""
        if tag is None or error.status != INVALID or "grammar" not in str(error).lower():
            return False
        self._refused.add(tag)
        return True


def structural_tag(tools: Sequence[ToolSpec]) -> str:
    """A tag in the form that SGLang and xgrammar have in common in all known releases, as JSON."""
    structures = [
        {
            "begin": f'{CALL_OPEN}\n{{"name": {json.dumps(tool.name, ensure_ascii=False)}, "arguments": ',
            "schema": {**tool.parameters, "type": "object"},
            "end": f"}}\n{CALL_CLOSE}",
        }
        for tool in tools
    ]
    return json.dumps({"type": "structural_tag", "structures": structures, "triggers": [CALL_OPEN]})
