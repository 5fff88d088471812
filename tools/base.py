"""What a tool is, and what it is handed: declared inputs, media store, sandbox, visual budget. No globals."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from keyeloop.runtime.clock import Clock, SystemClock
from keyeloop.runtime.content import MediaRef, Part, ToolSpec, images_of
from keyeloop.runtime.evidence import Source
from keyeloop.runtime.media import MediaStore
from keyeloop.runtime.views import ViewBook
from keyeloop.runtime.visual_cost import VisualCost

TOOL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
"""What every model's server takes for a tool's name."""


@dataclass(frozen=True)
class Progress:
    """How far a call is; for people, never told to the model."""

    text: str = ""
    done: float | None = None
    total: float | None = None


@dataclass
class ToolContext:
    """What a run lends to its tools. One per run."""

    inputs: MutableMapping[str, Source]
    """Declared sources by the name that the model uses, and the videos that tools made; a tool reads nothing else."""
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
    shown: dict[str, MediaRef] = field(default_factory=dict)
    """Every picture that the model was shown, by its handle."""
    incidents: list[str] = field(default_factory=list)
    """What went wrong beneath a tool (a sandbox that died, say), for the record; the run takes them out."""
    deps: Any = field(default=None, repr=False)
    """What the caller handed to the run for its own tools (``Agent(..., deps=...)``); neither recorded nor sent."""
    on_progress: Callable[[Progress], None] | None = field(default=None, repr=False)
    """Who hears of this call's progress; may be called in any thread."""

    def report(self, text: str = "", done: float | None = None, total: float | None = None) -> None:
        """Tell whoever watches the run how far this call is, from any thread; the model is told nothing."""
        if self.on_progress is not None:
            self.on_progress(Progress(text, done, total))

    def remember(self, parts: Iterable[Part]) -> None:
        """Note the pictures among ``parts``: the model has them before it now."""
        self.shown.update((image.view.handle, image.media) for part in parts for image in images_of(part) if image.view)


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
