"""Tools in words, for a server that has no place for them: the Hermes format in plain turns.

The tools stand in the system turn, calls in the assistant's text, results in user turns between ``<tool_response>``
tags: what Qwen's and Keye's templates write out themselves.
"""

from __future__ import annotations

from dataclasses import replace

from keyeloop.model_backend.base import Request
from keyeloop.model_backend.keye.template import TOOLS_CLOSE, TOOLS_OPEN, call_text, tool_json
from keyeloop.runtime.content import Message, Text


def in_words(request: Request) -> Request:
    """The same request without tools, calls or tool turns."""
    messages = list(request.messages)
    if request.tools:
        told = "\n".join([TOOLS_OPEN, *map(tool_json, request.tools)]) + TOOLS_CLOSE
        if messages and messages[0].role == "system":
            messages[0] = replace(messages[0], parts=(*messages[0].parts, Text(f"\n\n{told}")))
        else:
            messages.insert(0, Message("system", (Text(told),)))
    return replace(request, messages=tuple(map(_plain, messages)), tools=())


def _plain(message: Message) -> Message:
    if message.role == "tool":
        parts = (Text("<tool_response>\n"), *message.parts, Text("\n</tool_response>"))
        return Message("user", parts)
    if message.tool_calls:
        said = [message.text] * bool(message.text) + [call_text(call) for call in message.tool_calls]
        return Message("assistant", (Text("\n".join(said)),), reasoning=message.reasoning)
    return message
