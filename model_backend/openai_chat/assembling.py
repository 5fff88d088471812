"""A reply put together from the pieces that a server streams, or from one whole completion."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from keyeloop.model_backend.base import Delta, Reply
from keyeloop.model_backend.served.failures import message_of
from keyeloop.model_backend.toolcalls import (
    CALL_CLOSE,
    CALL_OPEN,
    THINK_CLOSE,
    ParsedCall,
    StreamParser,
    parse_call,
    parse_reply,
)
from keyeloop.runtime.content import MalformedCall, Message, Text, ToolCall, Usage
from keyeloop.runtime.errors import BackendError

REASONING_FIELDS = ("reasoning_content", "reasoning")
"""Where servers write thinking that they have parsed themselves."""
MAX_CALLS = 256


@dataclass
class _Call:
    """A call as the server parsed it, its arguments still text."""

    name: str = ""
    arguments: str = ""

    def body(self) -> str:
        """As the model would have written it; arguments that are no JSON are left as they are."""
        return f'{{"name": {json.dumps(self.name, ensure_ascii=False)}, "arguments": {self.arguments.strip() or "{}"}}}'


class Assembly:
    """Collects one reply.

    ``opened_thinking`` is a guess, from earlier replies, for what is shown while it streams; or ``surely`` so.
    """

    def __init__(
        self,
        where: str,
        started: float,
        on_delta: Callable[[Delta], None] | None,
        opened_thinking: bool,
        *,
        surely: bool = False,
    ) -> None:
        self._surely_opened = opened_thinking and surely
        self.began = False
        """Whether anything of the reply itself has come: from then on the request is never sent again."""
        self.reasoning_field: str | None = None
        self._where, self._started, self._on_delta = where, started, on_delta
        self._parser = StreamParser(opened_thinking)
        self._reasoning, self._content = "", ""
        self._calls: dict[int, _Call] = {}
        self._finish: str | None = None
        self._usage: Mapping[str, Any] = {}
        self._first_token_s: float | None = None
        self._whole = False

    @property
    def complete(self) -> bool:
        """Whether the server has said how the reply ended."""
        return self._finish is not None or self._whole

    @property
    def received_chars(self) -> int:
        """Characters of text, thinking and arguments so far."""
        return len(self._content) + len(self._reasoning) + sum(len(call.arguments) for call in self._calls.values())

    @property
    def thought_in_content(self) -> bool:
        """Whether the server left thinking in the content, opened by its template."""
        return THINK_CLOSE in self._content and not self._content.lstrip().startswith("<think>")

    def take(self, data: str) -> None:
        """Take the data of one event, or a whole completion. BackendError for what the protocol does not know."""
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError):
            raise BackendError(f"{self._where} sent what is not JSON: {data[:80]!r}; is it a chat endpoint?") from None
        if not isinstance(chunk, dict):
            raise BackendError(f"{self._where} sent {data[:80]!r} where an object was due; is it a chat endpoint?")
        if chunk.get("error"):
            raise BackendError(f"{self._where} broke off with an error: {message_of(data)}")
        if isinstance(chunk.get("usage"), dict):
            self._usage = chunk["usage"]
        choices = chunk.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            return
        choice = choices[0]
        if isinstance(choice.get("message"), dict):
            self._whole = True
            self._piece(choice["message"])
        elif isinstance(choice.get("delta"), dict):
            self._piece(choice["delta"])
        if isinstance(choice.get("finish_reason"), str):
            self._finish = choice["finish_reason"]

    def reply(self, estimate: Usage) -> Reply:
        """The reply; token counts that the server does not tell are taken from ``estimate``."""
        self._show(self._parser.finish())
        cut = self._finish == "length"
        parsed = parse_reply(self._content, self._surely_opened or THINK_CLOSE in self._content, cut)
        reasoning = "\n".join(part for part in (self._reasoning.strip(), parsed.reasoning) if part)
        calls, malformed = list(parsed.calls), list(parsed.malformed)
        bodies = [self._calls[index].body() for index in sorted(self._calls)]
        for body in bodies:
            call = parse_call(body)
            if isinstance(call, ParsedCall):
                calls.append(call)
            else:
                malformed.append(MalformedCall(call.text, call.problem))
        raw = "\n".join([*([self._content] if self._content else []), *(_block(body) for body in bodies)])
        if self._reasoning.strip():
            raw = f"{self._reasoning.strip()}\n{THINK_CLOSE}\n\n{raw}" if raw.strip() else self._reasoning.strip()
        message = Message(
            "assistant",
            (Text(parsed.text),) if parsed.text else (),
            reasoning=reasoning,
            tool_calls=tuple(
                ToolCall(f"call-{number}", call.name, call.arguments) for number, call in enumerate(calls, 1)
            ),
            raw=raw,
        )
        finish: Literal["stop", "tool_calls", "length"] = "length" if cut else "tool_calls" if calls else "stop"
        return Reply(message, self._used(estimate, raw, reasoning), finish, tuple(malformed), self._first_token_s)

    def _piece(self, piece: Mapping[str, Any]) -> None:
        for field in REASONING_FIELDS:
            if isinstance(piece.get(field), str) and piece[field]:
                self._begin()
                self.reasoning_field = field
                self._reasoning += piece[field]
                self._show([Delta("reasoning", piece[field])])
                break
        content = piece.get("content")
        if isinstance(content, list):  # some servers answer in parts
            content = "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
        if isinstance(content, str) and content:
            self._begin()
            self._content += content
            if self._on_delta is not None:
                self._show(self._parser.feed(content))
        made = piece.get("tool_calls")
        for position, call in enumerate(made if isinstance(made, list) else []):
            if isinstance(call, dict):
                self._call(call, position)

    def _call(self, piece: Mapping[str, Any], position: int) -> None:
        self._begin()
        index = piece.get("index")
        place = index if isinstance(index, int) else position
        if place not in self._calls and len(self._calls) >= MAX_CALLS:
            raise BackendError(f"{self._where} sent more than {MAX_CALLS} calls in one reply")
        call = self._calls.setdefault(place, _Call())
        function = piece.get("function")
        if not isinstance(function, dict):
            return
        if isinstance(function.get("name"), str):
            call.name += function["name"]
        arguments = function.get("arguments")
        text = arguments if isinstance(arguments, str) else "" if arguments is None else json.dumps(arguments)
        call.arguments += text
        if text:
            self._show([Delta("tool_call", text)])

    def _begin(self) -> None:
        if not self.began:
            self.began = True
            self._first_token_s = time.monotonic() - self._started

    def _show(self, deltas: list[Delta]) -> None:
        if self._on_delta is not None:
            for delta in deltas:
                self._on_delta(delta)

    def _used(self, estimate: Usage, raw: str, reasoning: str) -> Usage:
        told = self._usage
        input_tokens = _count(told, "prompt_tokens")
        output_tokens = _count(told, "completion_tokens")
        thinking = _count(told.get("completion_tokens_details"), "reasoning_tokens")
        if output_tokens is None:
            output_tokens = -(-len(raw.encode("utf-8", "replace")) // 4)
        if thinking is None:
            thinking = round(output_tokens * len(reasoning) / max(1, len(raw))) if reasoning else 0
        known = estimate.input_tokens if input_tokens is None else input_tokens
        return Usage(
            input_tokens=known,
            cached_tokens=min(known, _count(told.get("prompt_tokens_details"), "cached_tokens") or 0),
            visual_tokens=min(known, estimate.visual_tokens),
            output_tokens=output_tokens,
            reasoning_tokens=min(thinking, output_tokens),
        )

    @property
    def prompt_tokens(self) -> int | None:
        """What the server counted for the request; None where it did not say."""
        return _count(self._usage, "prompt_tokens")


def _count(counts: Any, name: str) -> int | None:
    value = counts.get(name) if isinstance(counts, Mapping) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _block(body: str) -> str:
    return f"{CALL_OPEN}\n{body}\n{CALL_CLOSE}"
