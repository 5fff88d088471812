"""What flows between people, models and tools: parts, messages, calls, results and usage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from keyeloop.runtime.evidence import View

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class MediaRef:
    """Bytes in the media store, by content. Pixels of a picture are final: a backend never resizes them again."""

    sha256: str
    mime: str
    size_bytes: int
    width: int
    height: int


@dataclass(frozen=True)
class Text:
    """Plain text."""

    text: str


@dataclass(frozen=True)
class Image:
    """One picture, with its address where it shows a source."""

    media: MediaRef
    view: View | None = None
    shows: tuple[View, ...] = ()
    """Where several views are laid out in one picture: each of them, under the handle that is drawn beside it."""

    @property
    def views(self) -> tuple[View, ...]:
        """All that it shows."""
        return self.shows if self.view is None else (self.view, *self.shows)


@dataclass(frozen=True)
class Video:
    """A clip: frames of one size in ascending presentation time. Every frame has a view with ``time_s``."""

    frames: tuple[Image, ...]

    @property
    def times_s(self) -> tuple[float, ...]:
        return tuple(frame.view.time_s or 0.0 for frame in self.frames if frame.view is not None)


Part = Text | Image | Video


def images_of(part: Part) -> tuple[Image, ...]:
    """The pictures of a part: the frames of a clip, a picture itself, none of a text."""
    return part.frames if isinstance(part, Video) else (part,) if isinstance(part, Image) else ()


@dataclass(frozen=True)
class ToolCall:
    """A call as the model made it, parsed. ``id`` is unique in a run."""

    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class MalformedCall:
    """A tool call that could not be read: the model's own text, and what is wrong with it."""

    text: str
    problem: str


@dataclass(frozen=True)
class Message:
    """One turn. Messages are only ever appended to a run's history."""

    role: Role
    parts: tuple[Part, ...] = ()
    reasoning: str = ""
    """Thinking of an assistant turn, without its tags."""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    """For a tool turn: the call it answers."""
    raw: str | None = None
    """For an assistant turn: the exact text that the model produced after the generation prompt, end token excluded,
    so that the next request begins with the same bytes."""

    @property
    def text(self) -> str:
        """All text parts joined."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))


@dataclass(frozen=True)
class ToolSpec:
    """What a model is told of a tool: name, one-line description, JSON schema of its arguments."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Usage:
    """Tokens of one request, or a sum of several."""

    input_tokens: int = 0
    cached_tokens: int = 0
    """Of the input: served from a cache."""
    visual_tokens: int = 0
    """Of the input: picture tokens."""
    output_tokens: int = 0
    reasoning_tokens: int = 0
    """Of the output: thinking."""
    cost: float | None = None
    """In the currency of the model's prices; None where these are unknown, for a sum also where one part's are."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.cached_tokens + other.cached_tokens,
            self.visual_tokens + other.visual_tokens,
            self.output_tokens + other.output_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            _cost_of_both(self, other),
        )


def _cost_of_both(one: Usage, other: Usage) -> float | None:
    """No tokens cost nothing; tokens of an unknown cost make the sum unknown."""
    if one.cost is None and other.cost is None:
        return None
    for usage in (one, other):
        if usage.cost is None and usage.input_tokens + usage.output_tokens > 0:
            return None
    return (one.cost or 0.0) + (other.cost or 0.0)


@dataclass(frozen=True)
class TurnTokens:
    """The very tokens of one turn, where a backend knows them: what was read, what was drawn, how likely that was."""

    prompt_ids: tuple[int, ...]
    """What the model read, from place ``kept`` on; a picture has a token for each of its places."""
    ids: tuple[int, ...]
    """What it drew, the token that ends the turn included."""
    logprobs: tuple[float, ...]
    """Of each of ``ids``, natural logarithm."""
    kept: int = 0
    """The prompt begins with this many tokens of the turn before, its prompt and reply in a row."""

    def after(self, before: tuple[int, ...]) -> TurnTokens:
        """The same turn behind ``before``, the sequence of the turn before: what is known from it is left out.

        For a whole prompt, whose ``kept`` is 0.
        """
        kept = len(before)
        if self.prompt_ids[:kept] != before:
            pairs = zip(before, self.prompt_ids, strict=False)
            kept = next((place for place, (old, new) in enumerate(pairs) if old != new), len(self.prompt_ids))
        return TurnTokens(self.prompt_ids[kept:], self.ids, self.logprobs, kept)

    def sequence(self, before: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Prompt and reply in a row; ``before`` is the sequence of the turn before."""
        return before[: self.kept] + self.prompt_ids + self.ids


@dataclass(frozen=True)
class ToolResult:
    """What a tool gave back for one call."""

    call_id: str
    name: str
    parts: tuple[Part, ...]
    error: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)
    """For people and logs, never sent to a model."""
