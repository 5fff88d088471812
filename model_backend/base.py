"""The seam between the planner and whoever thinks: one request in, one reply out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from keyeloop.runtime.content import MalformedCall, Message, ToolSpec, TurnTokens, Usage
from keyeloop.runtime.media import MediaStore
from keyeloop.runtime.visual_cost import VisualCost


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn. ``temperature`` 0 is greedy."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps all."""
    max_tokens: int = 1024
    seed: int | None = None


@dataclass(frozen=True)
class Request:
    """Everything one reply depends on."""

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    allow_calls: bool = True
    """False asks for an answer: the tools stay in the prompt (the prefix is kept), a call is not accepted."""


@dataclass(frozen=True)
class Delta:
    """A piece of a reply while it streams."""

    kind: Literal["reasoning", "text", "tool_call"]
    text: str


@dataclass(frozen=True)
class Reply:
    """One assistant turn."""

    message: Message
    usage: Usage
    finish: Literal["stop", "tool_calls", "length"]
    malformed: tuple[MalformedCall, ...] = ()
    first_token_s: float | None = None
    """Seconds from the request to the first output token."""
    tokens: TurnTokens | None = None
    """The whole prompt and the reply in tokens, where the backend knows them."""


@dataclass(frozen=True)
class Capabilities:
    """What a backend says of its model."""

    model: str
    context_tokens: int
    cost: VisualCost
    native_video: bool
    """A clip travels as one Video part; otherwise as images with their time in text."""
    tool_images: bool
    """Pictures may stand inside a tool turn."""
    constrained_calls: bool = False
    """Tool calls are held to their JSON schema while they are decoded."""


class ModelBackend(Protocol):
    """Turns a request into a reply. Cancelling ``generate`` aborts the work behind it."""

    def capabilities(self) -> Capabilities:
        """Facts about the model; cheap after the first call."""

    def count_tokens(self, request: Request) -> Usage:
        """Exact ``input_tokens`` and ``visual_tokens`` of a request, without asking the model."""

    async def generate(
        self, request: Request, media: MediaStore, on_delta: Callable[[Delta], None] | None = None
    ) -> Reply:
        """Ask for one assistant turn. Raises BackendError when no reply could be had."""

    async def close(self) -> None:
        """Free what the backend holds; idempotent."""
