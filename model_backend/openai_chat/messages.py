"""A request in the form of the chat completions protocol.

Turns keep their order and only ever grow at the end, so that a server's prefix cache holds. A clip is a row of
pictures, each behind its handle and time in words. Where a server takes no pictures in tool turns they follow in a
user turn, after the results of that step; neighbouring user turns are joined, as many templates demand.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Literal

from keyeloop.model_backend.base import Request
from keyeloop.model_backend.toolcalls import THINK_CLOSE, THINK_OPEN
from keyeloop.runtime.content import Image, MediaRef, Message, Part, Text, ToolCall, ToolSpec

PATH = "/chat/completions"
PicturePlace = Literal["tool", "user", "omit"]
"""Where a tool's pictures go: into its own turn, into a user turn that follows, or nowhere (only their words)."""
CallForm = Literal["native", "text"]
"""How calls travel: as the protocol has them, or in words where a server would drop them."""
Json = dict[str, Any]
UrlOf = Callable[[MediaRef], str]


def body(
    request: Request, model: str, url_of: UrlOf, *, place: PicturePlace, reasoning_field: str | None = None
) -> bytes:
    """The whole request as JSON, to be streamed back with its usage.

    ``reasoning_field`` is where this server writes thinking; the thinking of earlier turns goes back there, else in
    ``<think>`` tags.
    """
    sampling = request.sampling
    made: Json = {
        "model": model,
        "messages": messages(request.messages, url_of, place=place, reasoning_field=reasoning_field),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if sampling.top_k:
        made["top_k"] = sampling.top_k
    if sampling.seed is not None:
        made["seed"] = sampling.seed
    if request.tools:
        made["tools"] = [tool_form(tool) for tool in request.tools]
        made["tool_choice"] = "auto" if request.allow_calls else "none"
    return json.dumps(made, ensure_ascii=False, default=str).encode("utf-8", "replace")


def tool_form(tool: ToolSpec) -> Json:
    """A tool as the protocol declares it."""
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}


def messages(
    history: Sequence[Message], url_of: UrlOf, *, place: PicturePlace, reasoning_field: str | None = None
) -> list[Json]:
    """Every turn, in order."""
    made: list[Json] = []
    moved: list[Json] = []
    for message in history:
        if message.role != "tool" and moved:
            _append_user(made, moved)
            moved = []
        if message.role == "assistant":
            made.append(_assistant(message, reasoning_field))
        elif message.role == "tool":
            content, pictures = _tool_content(message.parts, url_of, place)
            made.append({"role": "tool", "tool_call_id": message.tool_call_id or "", "content": content})
            moved += pictures
        elif message.role == "user":
            _append_user(made, _content(message.parts, url_of, place))
        else:
            made.append({"role": message.role, "content": message.text})
    if moved:
        _append_user(made, moved)
    return made


def _assistant(message: Message, reasoning_field: str | None) -> Json:
    text = message.text if message.tool_calls else _body_text(message)
    made: Json = {"role": "assistant", "content": text}
    if message.reasoning and reasoning_field is not None:
        made[reasoning_field] = message.reasoning
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


def _tool_content(parts: Sequence[Part], url_of: UrlOf, place: PicturePlace) -> tuple[str | list[Json], list[Json]]:
    """What stands in a tool turn, and what has to follow it."""
    if place != "user":
        return _joined(_content(parts, url_of, place)), []
    words = [_text(part.text) if isinstance(part, Text) else _text(_follows(part)) for part in parts]
    return _joined(words), [item for part in parts if not isinstance(part, Text) for item in _shown(part, url_of)]


def _content(parts: Sequence[Part], url_of: UrlOf, place: PicturePlace) -> list[Json]:
    made: list[Json] = []
    for part in parts:
        if isinstance(part, Text):
            made.append(_text(part.text))
        elif place == "omit":
            made += [_text(f"\n({name(image)}: not shown)") for image in _images(part)]
        elif isinstance(part, Image):
            made.append(_picture(part, url_of))
        else:
            made += _shown(part, url_of)
    return made


def _shown(part: Part, url_of: UrlOf) -> list[Json]:
    """Every picture behind its handle and time."""
    made: list[Json] = []
    for image in _images(part):
        made += [_text(f"{name(image)}:"), _picture(image, url_of)]
    return made


def _follows(part: Part) -> str:
    images = _images(part)
    what = "the picture is" if len(images) == 1 else "the pictures are"
    return f"\n({', '.join(map(name, images))}: {what} in the next message)"


def name(image: Image) -> str:
    """``f1 at 83.0 s``; ``picture`` for one without an address."""
    if image.view is None:
        return "picture"
    when = "" if image.view.time_s is None else f" at {image.view.time_s:.1f} s"
    return f"{image.view.handle}{when}"


def _images(part: Part) -> tuple[Image, ...]:
    return () if isinstance(part, Text) else (part,) if isinstance(part, Image) else part.frames


def _text(text: str) -> Json:
    return {"type": "text", "text": text}


def _picture(image: Image, url_of: UrlOf) -> Json:
    return {"type": "image_url", "image_url": {"url": url_of(image.media)}}


def _joined(content: list[Json]) -> str | list[Json]:
    """Text alone as a plain string, which every server reads."""
    if all(item["type"] == "text" for item in content):
        return "".join(item["text"] for item in content)
    return content


def _append_user(made: list[Json], content: list[Json]) -> None:
    if made and made[-1]["role"] == "user":
        before = made[-1]["content"]
        content = [*([_text(before)] if isinstance(before, str) else before), _text("\n\n"), *content]
        made[-1] = {"role": "user", "content": _joined(content)}
    else:
        made.append({"role": "user", "content": _joined(content)})
