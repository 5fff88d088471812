"""keye-tiny's ``chat_template.jinja``, rendered as transformers does, says what the template in Python says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings
from jinja2.sandbox import ImmutableSandboxedEnvironment

from keyeloop.model_backend.keye.template import Picture, render
from keyeloop.model_backend.local.folder import model_folder
from keyeloop.runtime.content import Image, MediaRef, Message, Part, Text, ToolCall, ToolSpec, Video
from keyeloop.runtime.evidence import Region, View

FOLDER = model_folder("keye-tiny")
TEMPLATE = (FOLDER / "chat_template.jinja").read_text(encoding="utf-8")
FRAMES = re.compile(r"(?:<\|frame\|>[\d.]+<\|video_pad\|>)+")
PICTURE = MediaRef("0" * 64, "image/jpeg", 1, 56, 28)

words = st.text("ab é\n<{\"'", min_size=1, max_size=8)
values = st.dictionaries(st.sampled_from(["at", "é"]), st.one_of(st.integers(), words, st.lists(st.floats(0, 1))))
calls = st.builds(ToolCall, st.just("c1"), st.sampled_from(["look", "zoom"]), values)
tools = st.builds(ToolSpec, st.sampled_from(["look", "zoom"]), words, values)


def clip(frames: int) -> Video:
    whole = Region(0, 0, 56, 28)
    return Video(tuple(Image(PICTURE, View(f"f{at}", "video-1", "", at / 2, whole)) for at in range(1, frames + 1)))


parts = st.lists(
    st.one_of(st.builds(Text, words), st.just(Image(PICTURE)), st.integers(1, 3).map(clip)), min_size=1, max_size=3
).map(tuple)
users = st.builds(Message, st.just("user"), parts)
results = st.builds(Message, st.just("tool"), parts, tool_call_id=st.just("c1"))
replies = st.builds(
    Message,
    st.just("assistant"),
    st.lists(st.builds(Text, words.map(str.strip).filter(bool)), max_size=1).map(tuple),
    words.map(str.strip),
    st.lists(calls, max_size=2).map(tuple),
)
histories = st.tuples(
    st.lists(st.builds(Message, st.just("system"), st.builds(Text, words).map(lambda text: (text,))), max_size=1),
    st.lists(st.one_of(users, results, replies), max_size=6),
).map(lambda both: [*both[0], *both[1]])


def by_jinja(messages: list[dict[str, Any]], declared: list[dict[str, Any]], *, open_reply: bool) -> str:
    """As transformers renders a chat template."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    template = environment.from_string(TEMPLATE)
    return template.render(messages=messages, tools=declared, add_generation_prompt=open_reply)


def by_us(messages: list[Message], declared: list[ToolSpec], *, open_reply: bool) -> str:
    """A clip as the place that a server's processor fills."""
    chunks = render(messages, declared, open_reply=open_reply)
    return FRAMES.sub("<|video_pad|>", "".join(one.pad if isinstance(one, Picture) else one.text for one in chunks))


def as_chat(message: Message, *, in_content: bool) -> dict[str, Any]:
    """A turn as it reaches a template in a server; thinking in a field of its own, or in the content."""
    made: dict[str, Any] = {"role": message.role, "content": [_part(part) for part in message.parts]}
    if message.role == "assistant":
        made["content"] = message.text
        if in_content:
            made["content"] = f"<think>\n{message.reasoning}\n</think>\n\n{message.text}"
        else:
            made["reasoning_content"] = message.reasoning
        made["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": dict(call.arguments)}}
            for call in message.tool_calls
        ]
    return made


def _part(part: Part) -> dict[str, str]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    return {"type": "image" if isinstance(part, Image) else "video"}


def as_declared(tool: ToolSpec) -> dict[str, Any]:
    function = {"description": tool.description, "name": tool.name, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": {**function, "strict": False}}


@settings(deadline=None, max_examples=200)
@given(histories, st.lists(tools, max_size=2), st.booleans(), st.booleans())
def test_both_templates_say_the_same(
    history: list[Message], declared: list[ToolSpec], open_reply: bool, in_content: bool
) -> None:
    said = by_jinja(
        [as_chat(message, in_content=in_content) for message in history],
        [as_declared(tool) for tool in declared],
        open_reply=open_reply,
    )
    assert said == by_us(history, declared, open_reply=open_reply)


def test_a_plain_string_is_content_and_a_reply_may_be_empty() -> None:
    said = by_jinja([{"role": "user", "content": "hi"}, {"role": "assistant", "content": None}], [], open_reply=True)
    assert said == by_us([Message("user", (Text("hi"),)), Message("assistant")], [], open_reply=True)


def test_the_folder_tells_a_server_where_a_reply_ends() -> None:
    added = {token["content"]: token["id"] for token in json.loads(_text("tokenizer.json"))["added_tokens"]}
    config = json.loads(_text("tokenizer_config.json"))
    ends = json.loads(_text("generation_config.json"))["eos_token_id"]
    assert ends[0] == added[config["eos_token"]] == added["<|im_end|>"]
    assert json.loads(_text("config.json"))["max_position_embeddings"] == config["model_max_length"]


def _text(name: str) -> str:
    return Path(FOLDER / name).read_text(encoding="utf-8")
