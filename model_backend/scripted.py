"""A backend that says what it is told to: for tests, examples and dry runs of tools."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from keyeloop.model_backend.base import Capabilities, Delta, Reply, Request
from keyeloop.runtime.content import Message, Text, ToolCall, Usage, images_of
from keyeloop.runtime.errors import BackendError
from keyeloop.runtime.media import MediaStore
from keyeloop.runtime.visual_cost import FramePlan, FrameSize, VisualCost

Spoken = Message | Reply | str
Answering = Callable[[Request], Spoken | Awaitable[Spoken]]
"""A reply made from the request, at once or in its own time; it may raise."""
Script = Spoken | Answering
"""One entry of a script."""

BYTES_A_TOKEN = 4
PATCH_PX = 28
"""Side of the square that one picture token stands for."""
MESSAGE_TOKENS = 4
"""What the frame of a turn (role and end marks) is counted as."""


@dataclass(frozen=True)
class PatchCost:
    """Picture tokens as squares of ``patch_px`` pixels: the simplest honest :class:`VisualCost`."""

    patch_px: int = PATCH_PX
    max_image_tokens: int = 1024
    max_frame_tokens: int = 256

    def image(self, width: int, height: int) -> FrameSize:
        """Size and cost of a still of ``width`` x ``height`` pixels."""
        return self._fit(width, height, self.max_image_tokens)

    def frame(self, width: int, height: int, *, max_tokens: int | None = None) -> FrameSize:
        """Size and cost of one frame of a clip."""
        limit = self.max_frame_tokens if max_tokens is None else min(max_tokens, self.max_frame_tokens)
        return self._fit(width, height, max(1, limit))

    def clip(self, width: int, height: int, wanted_frames: int, budget_tokens: int) -> FramePlan:
        """As many frames as fit at full size; fewer, never smaller, when the budget is short (at least one)."""
        size = self.frame(width, height, max_tokens=max(1, budget_tokens))
        return FramePlan(max(1, min(wanted_frames, budget_tokens // size.tokens)), size)

    def _fit(self, width: int, height: int, max_tokens: int) -> FrameSize:
        columns, rows = max(1, round(width / self.patch_px)), max(1, round(height / self.patch_px))
        if columns * rows > max_tokens:
            scale = math.sqrt(max_tokens / (columns * rows))
            columns, rows = max(1, int(columns * scale)), max(1, int(rows * scale))
            columns, rows = min(columns, max_tokens), min(rows, max(1, max_tokens // columns))
        return FrameSize(columns * self.patch_px, rows * self.patch_px, columns * rows)


def call(name: str, /, **arguments: Any) -> Message:
    """An assistant turn that makes one tool call."""
    return calls((name, arguments))


def calls(*wanted: tuple[str, dict[str, Any]], reasoning: str = "") -> Message:
    """An assistant turn that makes several tool calls at once."""
    made = tuple(ToolCall(f"s{index}", name, arguments) for index, (name, arguments) in enumerate(wanted, 1))
    return Message("assistant", reasoning=reasoning, tool_calls=made)


class ScriptedBackend:
    """Gives prepared replies in order and keeps every request it was given in ``requests``.

    ``replies`` is a sequence of entries, or one function that answers every request, which many runs at once need.
    Parses nothing: a Message carries its own calls and thinking, a Reply also its malformed calls and finish, a str
    is an answer. Tokens are four bytes each, pictures cost their patches. BackendError when the script runs out.
    """

    def __init__(
        self,
        replies: Sequence[Script] | Answering,
        *,
        model: str = "scripted",
        context_tokens: int = 32_768,
        cost: VisualCost | None = None,
        native_video: bool = True,
        tool_images: bool = True,
    ) -> None:
        self.requests: list[Request] = []
        self.closed = False
        self._replies = replies if callable(replies) else tuple(replies)
        self._cost = cost or PatchCost()
        self._capabilities = Capabilities(model, context_tokens, self._cost, native_video, tool_images)

    def capabilities(self) -> Capabilities:
        """What was passed in."""
        return self._capabilities

    def count_tokens(self, request: Request) -> Usage:
        """Deterministic arithmetic, a sum over turns: a longer history never counts less."""
        tools = sum(_tokens(json.dumps([t.name, t.description, dict(t.parameters)])) for t in request.tools)
        visual = sum(self._visual(message) for message in request.messages)
        text = sum(MESSAGE_TOKENS + _tokens(_written(message)) for message in request.messages)
        return Usage(input_tokens=tools + text + visual, visual_tokens=visual)

    async def generate(
        self, request: Request, media: MediaStore, on_delta: Callable[[Delta], None] | None = None
    ) -> Reply:
        """The next reply of the script."""
        cached = self._cached(request)
        self.requests.append(request)
        entry = self._entry(len(self.requests))
        made = entry if isinstance(entry, Message | Reply | str) else entry(request)
        reply = _as_reply(await made if inspect.isawaitable(made) else made)
        if on_delta is not None:
            for delta in deltas(reply.message):
                on_delta(delta)
        if reply.usage != Usage():
            return reply
        counted = self.count_tokens(request)
        thinking = _tokens(reply.message.reasoning)
        return replace(
            reply,
            usage=replace(
                counted,
                cached_tokens=cached,
                output_tokens=_tokens(_written(reply.message)),
                reasoning_tokens=thinking,
            ),
        )

    async def close(self) -> None:
        """Note that it was closed."""
        self.closed = True

    def _entry(self, turn: int) -> Script:
        if callable(self._replies):
            return self._replies
        if turn > len(self._replies):
            raise BackendError(f"the script has {len(self._replies)} replies; request {turn} has none: add one")
        return self._replies[turn - 1]

    def _visual(self, message: Message) -> int:
        total = 0
        for part in message.parts:
            for image in images_of(part):
                columns = math.ceil(image.media.width / PATCH_PX)
                total += columns * math.ceil(image.media.height / PATCH_PX)
        return total

    def _cached(self, request: Request) -> int:
        if not self.requests or self.requests[-1].tools != request.tools:
            return 0
        same = 0
        for old, new in zip(self.requests[-1].messages, request.messages, strict=False):
            if old != new:
                break
            same += 1
        return self.count_tokens(replace(request, messages=request.messages[:same])).input_tokens if same else 0


def _as_reply(spoken: Spoken) -> Reply:
    if isinstance(spoken, Reply):
        return replace(spoken, message=_with_raw(spoken.message))
    message = Message("assistant", (Text(spoken),)) if isinstance(spoken, str) else spoken
    return Reply(_with_raw(message), Usage(), "tool_calls" if message.tool_calls else "stop")


def _with_raw(message: Message) -> Message:
    return message if message.raw is not None else replace(message, raw=_written(message))


def _written(message: Message) -> str:
    """A turn's text as it would be written out: thinking, text, calls."""
    if message.raw is not None:
        return message.raw
    if message.role != "assistant":
        return message.text
    blocks = [message.text] if message.text else []
    for made in message.tool_calls:
        body = json.dumps({"name": made.name, "arguments": dict(made.arguments)}, ensure_ascii=False)
        blocks.append(f"<tool_call>\n{body}\n</tool_call>")
    return f"{message.reasoning}\n</think>\n\n" + "\n".join(blocks)


def deltas(message: Message) -> list[Delta]:
    """A finished turn as the pieces in which it would have streamed."""
    deltas = [Delta("reasoning", message.reasoning)] if message.reasoning else []
    if message.text:
        deltas.append(Delta("text", message.text))
    for made in message.tool_calls:
        deltas.append(Delta("tool_call", json.dumps({"name": made.name, "arguments": dict(made.arguments)})))
    return deltas


def _tokens(text: str) -> int:
    return math.ceil(len(text.encode()) / BYTES_A_TOKEN)
