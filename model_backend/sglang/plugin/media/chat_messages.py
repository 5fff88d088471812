"""A chat request as the protocol has it, as keyeloop's own messages: what the template renders.

Each text part stays a part of its own and names of special tokens in it are ordinary characters. A picture or a clip
is a place; its name and budget go to the loader.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from keyeloop.model_backend.keye.sizing import FACTOR
from keyeloop.model_backend.keye.template import Picture, render
from keyeloop.model_backend.keye.tokenizer import KeyeTokenizer
from keyeloop.model_backend.sglang.plugin.media.asked import OPTIONS, Asked, budget_of
from keyeloop.model_backend.toolcalls import THINK_CLOSE, THINK_OPEN
from keyeloop.runtime.content import Image, MediaRef, Message, Part, Role, Text, ToolCall, ToolSpec
from keyeloop.runtime.errors import InputError

_ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_TEXT, _PICTURE, _CLIP = ("text", "input_text"), ("image_url", "input_image"), "video_url"
_THINKING = ("thinking", "reasoning")


@dataclass(frozen=True)
class Prompt:
    """Token ids with one pad for each picture and clip, and what stands there, in order."""

    ids: list[int]
    pictures: list[Asked] = field(default_factory=list)
    clips: list[Asked] = field(default_factory=list)


def prompt_of(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]],
    tokenizer: KeyeTokenizer,
    *,
    raw_replies: bool = False,
    open_reply: bool = True,
) -> Prompt:
    """Render a chat request, ``messages`` and ``tools`` in the protocol's own form.

    Without ``open_reply`` the last turn is an assistant's that goes on. Raises InputError, naming the message, for
    content that this model does not take.
    """
    reader = _Reader(raw_replies)
    turns = [reader.message(message, number) for number, message in enumerate(messages, 1)]
    if not open_reply and (not turns or turns[-1].role != "assistant"):
        raise InputError("continue_final_message is for a request whose last message is an assistant's")
    chunks = render(turns, [_tool(tool) for tool in tools], open_reply=open_reply)
    made = Prompt([])
    for chunk in chunks if open_reply else chunks[:-1]:  # without the end of the turn that goes on
        if isinstance(chunk, Picture):
            asked, is_clip = reader.places[int(chunk.image.media.sha256)]
            (made.clips if is_clip else made.pictures).append(asked)
            chunk = replace(chunk, pad="<|video_pad|>") if is_clip else chunk
        made.ids.extend(tokenizer.lay_out([chunk]).ids)
    return made


def media_of(messages: Sequence[Mapping[str, Any]]) -> tuple[list[Asked], list[Asked]]:
    """Pictures and clips of a chat request whose token ids the client has made itself, in order."""
    reader = _Reader(raw_replies=True)
    for number, message in enumerate(messages, 1):
        reader.message(message, number)
    return [one for one, is_clip in reader.places if not is_clip], [one for one, is_clip in reader.places if is_clip]


class _Reader:
    """Reads messages in order. A picture or clip becomes an image of one token, named by its number in ``places``."""

    def __init__(self, raw_replies: bool) -> None:
        self.places: list[tuple[Asked, bool]] = []
        self._raw_replies = raw_replies

    def message(self, message: Mapping[str, Any], number: int) -> Message:
        name = str(message.get("role") or "")
        if name not in _ROLES:
            raise InputError(f"message {number} is of role {name!r}: one of {', '.join(_ROLES)}")
        role = _ROLES[name]
        if role == "assistant":
            return _assistant(message, number, self._raw_replies)
        parts = self._parts(message.get("content"), f"message {number}")
        return Message(role, parts, tool_call_id=message.get("tool_call_id"))

    def _parts(self, content: Any, where: str) -> tuple[Part, ...]:
        if content is None or isinstance(content, str):
            return (Text(content),) if content else ()
        clips = sum(part.get("type") == _CLIP for part in content)
        return tuple(self._part(part, clips, f"part {number} of {where}") for number, part in enumerate(content, 1))

    def _part(self, part: Mapping[str, Any], clips: int, where: str) -> Part:
        kind = part.get("type")
        if kind in _TEXT:
            return Text(str(part.get("text") or ""))
        if kind not in (*_PICTURE, _CLIP):
            raise InputError(f"{where} is {kind!r}: this model takes text, image_url and video_url")
        is_clip = kind == _CLIP
        named = part.get("video_url" if is_clip else "image_url")
        inside = named if isinstance(named, Mapping) else {"url": named}
        url, options = inside.get("url"), inside.get(OPTIONS) or part.get(OPTIONS)
        if not isinstance(url, str) or not (options is None or isinstance(options, Mapping)):
            raise InputError(f"{where} has no url, or {OPTIONS} that are no object")
        asked = Asked(url, budget_of(options, clip=is_clip), clips if is_clip else 1)
        self.places.append((asked, is_clip))
        return Image(MediaRef(str(len(self.places) - 1), "", 0, FACTOR, FACTOR))


def _assistant(message: Mapping[str, Any], number: int, raw_replies: bool) -> Message:
    content = message.get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    said = "".join(str(part.get("text") or "") for part in parts if part.get("type") in _TEXT)
    thought = "".join(str(part.get("thinking") or part.get("text") or "") for part in parts if _is_thinking(part))
    reasoning = str(message.get("reasoning_content") or message.get("reasoning") or thought)
    calls = tuple(_call(call, number) for call in message.get("tool_calls") or ())
    if raw_replies and not calls and not reasoning:
        return Message("assistant", raw=said)
    if THINK_CLOSE in said and not reasoning:
        opened = said.lstrip()
        written = opened.removeprefix(THINK_OPEN).removeprefix("\n") if opened.startswith(THINK_OPEN) else said
        if not calls:
            return Message("assistant", raw=written)
        reasoning, _, said = (piece.strip("\n") for piece in written.partition(THINK_CLOSE))
    return Message("assistant", (Text(said),) if said else (), reasoning=reasoning, tool_calls=calls)


def _is_thinking(part: Mapping[str, Any]) -> bool:
    return part.get("type") in _THINKING


def _call(call: Mapping[str, Any], number: int) -> ToolCall:
    function = call.get("function") or {}
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            arguments = None
    if not isinstance(arguments, Mapping) or not isinstance(function.get("name"), str):
        raise InputError(f"message {number} calls a tool without a name, or with arguments that are no JSON object")
    return ToolCall(str(call.get("id") or ""), function["name"], arguments)


def _tool(tool: Mapping[str, Any]) -> ToolSpec:
    function = tool.get("function") or tool
    return ToolSpec(str(function["name"]), str(function.get("description") or ""), function.get("parameters") or {})
