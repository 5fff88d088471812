"""What a model says as a scripted reply, and what a request looks like to it: shared by the tests of byte parity."""

from __future__ import annotations

from keyeloop.model_backend.base import Reply
from keyeloop.model_backend.keye.template import Picture, render
from keyeloop.model_backend.toolcalls import parse_reply
from keyeloop.runtime.content import Message, Text, ToolCall, ToolSpec, Usage


def spoken(raw: str) -> Reply:
    parsed = parse_reply(raw)
    calls = tuple(ToolCall(f"t{n}", call.name, call.arguments) for n, call in enumerate(parsed.calls))
    message = Message("assistant", (Text(parsed.text),), parsed.reasoning, calls, raw=raw)
    return Reply(message, Usage(), "tool_calls" if calls else "stop")


def written(messages: tuple[Message, ...], tools: tuple[ToolSpec, ...]) -> list[object]:
    """A rendered request: its text, and in the place of a picture its size."""
    pieces: list[object] = []
    for chunk in render(messages, tools):
        media = chunk.image.media if isinstance(chunk, Picture) else None
        pieces.append((chunk.pad, media.width, media.height) if isinstance(chunk, Picture) and media else chunk)
    return pieces
