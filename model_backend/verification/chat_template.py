"""The chat template against ours: both render the same turns, and every part that matters is compared alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from keyeloop.model_backend.keye.template import REPLY_OPEN, Picture, render, tool_json
from keyeloop.model_backend.verification.checkpoint import Checkpoint
from keyeloop.model_backend.verification.finding import Finding, judged
from keyeloop.model_backend.verification.known import BASE_MODEL, Known
from keyeloop.runtime.content import Message, Text, ToolCall, ToolSpec

OURS = "model_backend/keye/template.py"
IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"
TOOL = ToolSpec("peer", "Look there.", {"type": "object", "properties": {"at": {"type": "integer"}}})
CALL = ToolCall("call-1", "peer", {"at": 7})
HISTORY = (
    Message("system", (Text("Be brief."),)),
    Message("user", (Text("What is there?"),)),
    Message("assistant", (), "I must look.", (CALL,)),
    Message("tool", (Text("it is grey"),), tool_call_id="call-1"),
    Message("assistant", (Text("Grey."),), "It is grey."),
)
SHOWN = 90


def check_template(checkpoint: Checkpoint, known: Known | None) -> Iterator[Finding]:
    """Point 4."""
    source = known.source("template") if known else BASE_MODEL
    for key, expected, holds, found in _aspects(checkpoint):
        yield judged(key, 4, holds, expected=expected, found=found, source=source, change=OURS)


def _aspects(checkpoint: Checkpoint) -> Iterator[tuple[str, str, bool | None, str]]:
    rendered = _Rendered(checkpoint)
    user = {"role": "user", "content": "What is there?"}
    asked = rendered.text([user], opened=True)
    yield "template-thinking", "a reply is opened with <think>", *_verdict(
        asked, lambda text: text.endswith(REPLY_OPEN), lambda text: f"ends with {text[-40:]!r}")  # fmt: skip
    declared = rendered.text([user], tools=True)
    yield "template-tools", "tools stand in the system turn, one line of JSON each", *_verdict(
        declared, lambda text: tool_json(TOOL) in text and "<tools>" in text,
        lambda text: "declared in another form" if TOOL.name in text else "a declared tool is dropped")  # fmt: skip
    history = rendered.text([_chat(message) for message in HISTORY])
    ours = "".join(
        chunk.pad if isinstance(chunk, Picture) else chunk.text for chunk in render(HISTORY, (), open_reply=False)
    )
    yield "template-history", "turns, thinking, calls and results as our template writes them", *_verdict(
        history, lambda text: text == ours, lambda text: _first_difference(text, ours))  # fmt: skip
    picture = [{"type": "text", "text": "seen"}, {"type": "image"}]
    turns = [user, _chat(HISTORY[2]), {"role": "tool", "content": picture, "tool_call_id": "call-1"}]
    yield "template-tool-pictures", f"a picture in a tool turn is {IMAGE}", *_verdict(
        rendered.text(turns), lambda text: f"<tool_response>\nseen{IMAGE}\n</tool_response>" in text,
        lambda text: "elsewhere in the turn" if IMAGE in text else "the picture is dropped")  # fmt: skip
    clip = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "seen"}]}]
    yield "template-video", f"a video is {VIDEO}", *_verdict(
        rendered.text(clip), lambda text: f"{VIDEO}seen" in text,
        lambda text: "in another form" if "<|video_pad|>" in text else "the video is dropped")  # fmt: skip


def _verdict(text: str | None, holds: Any, otherwise: Any) -> tuple[bool | None, str]:
    if text is None:
        return None, "no template that renders"
    return (True, "the same") if holds(text) else (False, otherwise(text)[: 2 * SHOWN])


def _first_difference(text: str, ours: str) -> str:
    at = next(
        (index for index, (a, b) in enumerate(zip(text, ours, strict=False)) if a != b), min(len(text), len(ours))
    )
    begin = max(0, at - 20)
    return f"at character {at}: {text[begin : at + 30]!r}, ours {ours[begin : at + 30]!r}"


def _chat(message: Message) -> dict[str, Any]:
    made: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.role == "assistant":
        made["reasoning_content"] = message.reasoning
    if message.tool_calls:
        made["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": dict(call.arguments)}}
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        made["tool_call_id"] = message.tool_call_id
    return made


class _Rendered:
    """Renders as transformers does, in jinja's sandbox; what does not render is None."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
        environment.globals["raise_exception"] = _refuse
        try:
            self._template = None if checkpoint.template is None else environment.from_string(checkpoint.template[1])
        except TemplateError:
            self._template = None

    def text(self, messages: list[dict[str, Any]], *, tools: bool = False, opened: bool = False) -> str | None:
        if self._template is None:
            return None
        declared = [json.loads(tool_json(TOOL))] if tools else None
        try:
            return self._template.render(messages=messages, tools=declared, add_generation_prompt=opened)
        except Exception:  # a template of somebody else's may fail in any way
            return None


def _refuse(message: str) -> None:
    raise TemplateError(message)
