"""Draws a reply token by token, and takes the finished reply apart."""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from keyeloop.model_backend.base import Delta, Reply
from keyeloop.model_backend.local.rules import ReplyRules, RuleBook
from keyeloop.model_backend.local.sampling import Sampler
from keyeloop.model_backend.local.sequence import CachedSequence
from keyeloop.model_backend.toolcalls import StreamParser, parse_reply
from keyeloop.runtime.content import Message, Text, ToolCall, Usage


@dataclass(frozen=True)
class Drawn:
    """A reply as it was drawn, end token excluded."""

    ids: tuple[int, ...]
    raw: str
    finish: Literal["stop", "length"]
    thinking_tokens: int
    first_token_at: float
    """By ``time.monotonic``."""


class Decoder:
    """Draws one reply from a sequence that has read its request."""

    def __init__(self, book: RuleBook, rules: ReplyRules, sampler: Sampler, emit: Callable[[Delta], None]) -> None:
        self._book, self._rules, self._sampler, self._emit = book, rules, sampler, emit
        self._bytes = codecs.getincrementaldecoder("utf-8")("replace")
        self._parser = StreamParser()
        self._text: list[str] = []

    def draw(self, sequence: CachedSequence, logits: Tensor, limit: int, check: Callable[[], None]) -> Drawn:
        """Draw at most ``limit`` tokens, beginning with ``logits``. ``check`` is called before each and may raise."""
        ids: list[int] = []
        thinking, first_at, finish = 0, 0.0, "length"
        while len(ids) < limit:
            check()
            token = self._next(logits)
            first_at = first_at or time.monotonic()
            if token == self._book.structure.turn_end:
                finish = "stop"
                break
            thinking += self._rules.thinking
            self._rules.consume(token)
            ids.append(token)
            self._stream(self._bytes.decode(self._book.vocabulary.tokens[token]))
            if len(ids) < limit:
                logits = sequence.extend(token)
        self._stream(self._bytes.decode(b"", final=True))
        for delta in self._parser.finish():
            self._emit(delta)
        return Drawn(tuple(ids), "".join(self._text), "stop" if finish == "stop" else "length", thinking, first_at)

    def _next(self, logits: Tensor) -> int:
        allowed = self._rules.allowed().to(logits.device)
        token = self._sampler.draw(logits, allowed)
        while self._rules.spells_structure(token):
            allowed = allowed.clone()
            allowed[token] = False
            token = self._sampler.draw(logits, allowed)
        return token

    def _stream(self, text: str) -> None:
        if text:
            self._text.append(text)
            for delta in self._parser.feed(text):
                self._emit(delta)


def assemble(drawn: Drawn, history: Sequence[Message], usage: Usage, first_token_s: float) -> Reply:
    """The reply of what was drawn after ``history``; calls are numbered on from those in it."""
    parsed = parse_reply(drawn.raw, cut=drawn.finish == "length")
    made = sum(len(message.tool_calls) for message in history)
    calls = tuple(
        ToolCall(f"call-{number}", call.name, call.arguments) for number, call in enumerate(parsed.calls, made + 1)
    )
    message = Message(
        "assistant",
        (Text(parsed.text),) if parsed.text else (),
        reasoning=parsed.reasoning,
        tool_calls=calls,
        raw=drawn.raw,
    )
    finish: Literal["stop", "tool_calls", "length"] = "tool_calls" if calls and drawn.finish == "stop" else drawn.finish
    return Reply(message, usage, finish, parsed.malformed, first_token_s)
