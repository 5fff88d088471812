"""How far a call is, for whoever watches the run."""

from __future__ import annotations

from dataclasses import dataclass

from keyeloop.runtime.content import ToolCall
from keyeloop.tools.base import Progress


@dataclass(frozen=True)
class Working:
    """A tool at work told how far it is; streamed, not recorded."""

    call: ToolCall
    progress: Progress
