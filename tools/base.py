"""What a tool is, and what it is handed: declared inputs, media store, sandbox, visual budget. No globals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from keyeloop.runtime.clock import Clock, SystemClock
from keyeloop.runtime.content import Part, ToolSpec
from keyeloop.runtime.evidence import Source
from keyeloop.runtime.media import MediaStore
from keyeloop.runtime.views import ViewBook
from keyeloop.runtime.visual_cost import VisualCost


@dataclass
class ToolContext:
    """What a run lends to its tools. One per run."""

    inputs: Mapping[str, Source]
    """Declared sources by the name that the model uses; a tool reads nothing else."""
    media: MediaStore
    views: ViewBook
    """Every view of the run by handle; mints new handles."""
    cost: VisualCost
    visual_budget_tokens: int
    """Picture tokens that one result may add."""
    clock: Clock = field(default_factory=SystemClock)
    documents: Path | None = None
    """Folder that ``web_search`` has indexed."""
    state: dict[str, Any] = field(default_factory=dict)
    """Tools keep what lives as long as the run here (an open sandbox), by their own name."""
    deps: Any = field(default=None, repr=False)
    """What the caller handed to the run for its own tools (``Agent(..., deps=...)``); neither recorded nor sent."""


class Tool(Protocol):
    """Something the model can call."""

    @property
    def spec(self) -> ToolSpec:
        """Name, description and JSON schema, as the model is told."""

    @property
    def timeout_s(self) -> float:
        """Seconds after which a call is abandoned and the model is told so."""

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> tuple[Part, ...]:
        """Run with arguments that already fit the schema. Raises ToolError for what the model should hear."""

    async def close(self, context: ToolContext) -> None:
        """Free what the tool keeps in ``context.state``; called once when the run ends."""
