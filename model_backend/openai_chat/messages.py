"""Turns in the form of the chat completions protocol, as pieces of JSON that are put together later.

Turns keep their order and only ever grow at the end, so that a server's prefix cache holds. A clip is a row of
pictures, each behind its handle and time in words. Where a server takes no pictures in tool turns they follow in a
user turn, after the results of that step; neighbouring user turns are joined, as many templates demand.

keyeloop's own server takes every turn as it is: a clip as one part, and what the model wrote in its own words.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from keyeloop.model_backend.keye.template import spoken
from keyeloop.model_backend.toolcalls import THINK_CLOSE, THINK_OPEN
from keyeloop.runtime.content import Image, MediaRef, Message, Part, Text, ToolCall, ToolSpec, Video, images_of
from keyeloop.runtime.media import MediaStore

PATH = "/chat/completions"
PicturePlace = Literal["tool", "user", "omit"]
"""Where a tool's pictures go: into its own turn, into a user turn that follows, or nowhere (only their words)."""
CallForm = Literal["native", "text"]
"""How calls travel: as the protocol has them, or in words where a server would drop them."""
Json = dict[str, Any]


@dataclass(frozen=True)
class Form:
    """What one server takes."""

    place: PicturePlace
    reasoning_field: str | None = None
    """Where this server writes thinking; the thinking of earlier turns goes back there, else in ``<think>`` tags."""
    own: bool = False
    """It runs keyeloop's plugin."""


class Names(Protocol):
    """How pictures and clips are named in a request."""

    def still(self, picture: MediaRef, media: MediaStore) -> bytes:
        """A picture's URL as JSON."""

    def clip(self, clip: Video, media: MediaStore) -> bytes:
        """A clip's URL as JSON."""


class Item(NamedTuple):
    """A part of a turn's content. Long pieces are shared, never copied."""

    pieces: tuple[bytes, ...]
    text: str | None = None
    """Of a part that is only that."""


@dataclass(frozen=True)
class Turn:
    """One message."""

    role: str
    pieces: tuple[bytes, ...]
    """The whole of it as JSON."""
    items: tuple[Item, ...] = ()
    moved: tuple[Item, ...] = ()
    """Pictures that have to follow in a user turn."""


def tool_form(tool: ToolSpec) -> Json:
    """A tool as the protocol declares it."""
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}


def turn_of(message: Message, form: Form, names: Names, media: MediaStore) -> Turn:
    """One message in the form of one server."""
    if message.role == "assistant":
        said = {"role": "assistant", "content": spoken(message)} if form.own else _assistant(message, form)
        return Turn("assistant", (written(said),))
    if message.role == "system" and not form.own:
        return Turn("system", (written({"role": "system", "content": message.text}),))
    moved: tuple[Item, ...] = ()
    if form.own:
        items = tuple(_whole(part, names, media) for part in message.parts)
    elif message.role == "tool" and form.place == "user":
        items = tuple(_text(part.text if isinstance(part, Text) else _follows(part)) for part in message.parts)
        moved = tuple(item for part in message.parts for item in _shown(part, names, media))
    else:
        items = tuple(item for part in message.parts for item in _content(part, form.place, names, media))
    head = {"tool_call_id": message.tool_call_id or ""} if message.role == "tool" else {}
    return Turn(message.role, _message(message.role, head, items, keep_apart=form.own), items, moved)


def conversation(turns: Iterable[Turn], form: Form) -> list[Turn]:
    """All turns in order, joined and completed as ``form`` demands."""
    if form.own:
        return list(turns)
    made: list[Turn] = []
    moved: list[Item] = []
    for turn in turns:
        if turn.role != "tool" and moved:
            _append_user(made, _user(moved))
            moved = []
        if turn.role == "user":
            _append_user(made, turn)
        else:
            made.append(turn)
        moved += turn.moved
    if moved:
        _append_user(made, _user(moved))
    return made


def written(value: Any) -> bytes:
    """JSON, with a question mark for what no encoding has."""
    return json.dumps(value, ensure_ascii=False, default=str).encode("utf-8", "replace")


def name(image: Image) -> str:
    """``f1 at 83.0 s``; ``picture`` for one without an address."""
    if image.view is None:
        return "picture"
    when = "" if image.view.time_s is None else f" at {image.view.time_s:.1f} s"
    return f"{image.view.handle}{when}"


def _assistant(message: Message, form: Form) -> Json:
    text = message.text if message.tool_calls else _body_text(message)
    made: Json = {"role": "assistant", "content": text}
    if message.reasoning and form.reasoning_field is not None:
        made[form.reasoning_field] = message.reasoning
    elif message.reasoning:
        made["content"] = f"{THINK_OPEN}\n{message.reasoning}\n{THINK_CLOSE}\n\n{text}"
    if message.tool_calls:
        made["tool_calls"] = [_call(call) for call in message.tool_calls]
    return made


def _body_text(message: Message) -> str:
    """What a turn without readable calls said, broken calls included."""
    if message.raw is None:
        return message.text
    before, close, after = message.raw.rpartition(THINK_CLOSE)
    if close:
        return after.strip()
    return message.text if message.reasoning else before.strip() or after.strip()


def _call(call: ToolCall) -> Json:
    arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _whole(part: Part, names: Names, media: MediaStore) -> Item:
    if isinstance(part, Text):
        return _text(part.text)
    if isinstance(part, Image):
        return _picture(part, names, media)
    return Item((b'{"type":"video_url","video_url":{"url":', names.clip(part, media), b"}}"))


def _content(part: Part, place: PicturePlace, names: Names, media: MediaStore) -> list[Item]:
    if isinstance(part, Text):
        return [_text(part.text)]
    if place == "omit":
        return [_text(f"\n({name(image)}: not shown)") for image in images_of(part)]
    return [_picture(part, names, media)] if isinstance(part, Image) else _shown(part, names, media)


def _shown(part: Part, names: Names, media: MediaStore) -> list[Item]:
    """Every picture behind its handle and time."""
    return [item for one in images_of(part) for item in (_text(f"{name(one)}:"), _picture(one, names, media))]


def _follows(part: Part) -> str:
    images = images_of(part)
    what = "the picture is" if len(images) == 1 else "the pictures are"
    return f"\n({', '.join(map(name, images))}: {what} in the next message)"


def _text(text: str) -> Item:
    return Item((written({"type": "text", "text": text}),), text)


def _picture(image: Image, names: Names, media: MediaStore) -> Item:
    return Item((b'{"type":"image_url","image_url":{"url":', names.still(image.media, media), b"}}"))


def _message(role: str, head: Json, items: Sequence[Item], *, keep_apart: bool = False) -> tuple[bytes, ...]:
    """Text alone as a plain string, which every server reads; ``keep_apart`` leaves several as they are."""
    opening = written({"role": role, **head})[:-1] + b',"content":'
    texts = [item.text for item in items if item.text is not None]
    if len(texts) == len(items) and not (keep_apart and len(texts) > 1):
        return opening, written("".join(texts)), b"}"
    pieces = [piece for item in items for piece in (b",", *item.pieces)]
    return opening, b"[", *pieces[1:], b"]}"


def _user(items: Sequence[Item]) -> Turn:
    return Turn("user", _message("user", {}, items), tuple(items))


def _append_user(made: list[Turn], turn: Turn) -> None:
    if made and made[-1].role == "user":
        made[-1] = _user((*made[-1].items, _text("\n\n"), *turn.items))
    else:
        made.append(turn)
