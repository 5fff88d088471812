"""Keye's chat template: messages and tools to text pieces and picture places.

ChatML with Hermes tool calls, as in the template of the model's base (Qwen3-Thinking-2507): the reply is opened with
``<think>``, results stand in ``<tool_response>`` inside a user turn, pictures included. Every assistant turn is
rendered from ``Message.raw`` where it has one, so that a request begins with the exact bytes of the one before it.
What people, tools and pages wrote is :class:`Plain`: the names of special tokens mean nothing in it. Pieces of text
that no special token parts are :class:`Joined`, because a tokenizer with merges cuts across where they meet.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from keyeloop.runtime.content import Image, Message, Part, Text, ToolCall, ToolSpec

TOOLS_OPEN = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
)
TOOLS_CLOSE = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments "
    "within <tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)
REPLY_OPEN = "<|im_start|>assistant\n<think>\n"
END = "<|im_end|>"
TURN = "<|im_"
"""So begin the marks of a turn's start and end."""


@dataclass(frozen=True)
class Markup:
    """The template's own text: special tokens are special."""

    text: str


@dataclass(frozen=True)
class Plain:
    """Text from outside: special tokens' names are ordinary characters."""

    text: str


@dataclass(frozen=True)
class Spoken:
    """What the model itself produced: special tokens are special."""

    text: str


@dataclass(frozen=True)
class Picture:
    """A place for the tokens of one picture."""

    image: Image
    pad: Literal["<|image_pad|>", "<|video_pad|>"]


Piece = Markup | Plain | Spoken | Picture


@dataclass(frozen=True)
class Joined:
    """Neighbours among the template's own text and text from outside, to be cut into tokens as one text.

    A reply is never among them: its tokens are those that the model drew.
    """

    pieces: tuple[Markup | Plain, ...]

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)


Chunk = Markup | Plain | Spoken | Picture | Joined


def render(messages: Sequence[Message], tools: Sequence[ToolSpec], *, open_reply: bool = True) -> tuple[Chunk, ...]:
    """Lay out a request. With ``open_reply`` it ends where the model goes on writing."""
    chunks: list[Piece] = []
    rest = list(messages)
    system = rest.pop(0).text if rest and rest[0].role == "system" else ""
    if system or tools:
        chunks.append(Markup("<|im_start|>system\n"))
        chunks.append(Plain(system))
        chunks.extend(_tools(tools, bool(system)))
        chunks.append(Markup(f"{END}\n"))
    for index, message in enumerate(rest):
        if message.role == "tool":
            first = index == 0 or rest[index - 1].role != "tool"
            last = index + 1 == len(rest) or rest[index + 1].role != "tool"
            chunks.extend(_tool_turn(message, first, last))
        elif message.role == "assistant":
            chunks += [Markup(REPLY_OPEN), Spoken(spoken(message)), Markup(f"{END}\n")]
        else:
            chunks += [Markup(f"<|im_start|>{message.role}\n"), *_parts(message.parts), Markup(f"{END}\n")]
    if open_reply:
        chunks.append(Markup(REPLY_OPEN))
    return tuple(_joined(chunk for chunk in chunks if isinstance(chunk, Picture) or chunk.text))


def _joined(chunks: Iterable[Piece]) -> Iterator[Chunk]:
    """Neighbours made one, but for the marks of turns, so that a longer request begins with the same chunks."""
    run: list[Markup | Plain] = []
    for chunk in chunks:
        if run and not (isinstance(chunk, Plain) or (isinstance(chunk, Markup) and not chunk.text.startswith(TURN))):
            yield run[0] if len(run) == 1 else Joined(tuple(run))
            run = []
        if isinstance(chunk, Markup | Plain):
            run.append(chunk)
        else:
            yield chunk
    if run:
        yield run[0] if len(run) == 1 else Joined(tuple(run))


def spoken(message: Message) -> str:
    """The text of an assistant turn after the opened ``<think>``: its own bytes, or a composition of its fields."""
    if message.raw is not None:
        return message.raw
    body = "\n".join([message.text] * bool(message.text) + [call_text(call) for call in message.tool_calls])
    return f"{message.reasoning}\n</think>\n\n{body}"


def call_text(call: ToolCall) -> str:
    """One Hermes call block."""
    body = json.dumps({"name": call.name, "arguments": dict(call.arguments)}, ensure_ascii=False)
    return f"<tool_call>\n{body}\n</tool_call>"


def tool_json(tool: ToolSpec) -> str:
    """A tool's signature as one line of JSON."""
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return json.dumps({"type": "function", "function": function}, ensure_ascii=False)


def _tools(tools: Sequence[ToolSpec], after_system: bool) -> list[Piece]:
    if not tools:
        return []
    chunks: list[Piece] = [Markup(("\n\n" if after_system else "") + TOOLS_OPEN)]
    for tool in tools:
        chunks += [Markup("\n"), Plain(tool_json(tool))]
    return [*chunks, Markup(TOOLS_CLOSE)]


def _tool_turn(message: Message, first: bool, last: bool) -> list[Piece]:
    opening = "<|im_start|>user\n<tool_response>\n" if first else "\n<tool_response>\n"
    closing = f"\n</tool_response>{END}\n" if last else "\n</tool_response>"
    return [Markup(opening), *_parts(message.parts), Markup(closing)]


def _parts(parts: Sequence[Part]) -> list[Piece]:
    chunks: list[Piece] = []
    for part in parts:
        if isinstance(part, Text):
            chunks.append(Plain(part.text))
        elif isinstance(part, Image):
            chunks += [Markup("<|vision_start|>"), Picture(part, "<|image_pad|>"), Markup("<|vision_end|>")]
        else:
            chunks.append(Markup("<|vision_start|>"))
            for frame, time_s in zip(part.frames, part.times_s, strict=True):
                chunks += [Markup(f"<|frame|>{time_s:.1f}"), Picture(frame, "<|video_pad|>")]
            chunks.append(Markup("<|vision_end|>"))
    return chunks
