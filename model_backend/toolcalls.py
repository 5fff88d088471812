"""Reads a reply in the Hermes format: thinking up to ``</think>``, then text and ``<tool_call>`` blocks.

The format is that of Qwen3's chat template: a call is
``<tool_call>\\n{"name": ..., "arguments": {...}}\\n</tool_call>``, several in a row are legal, and the template may
have opened ``<think>`` before the reply begins.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from keyeloop.model_backend.base import Delta
from keyeloop.runtime.content import MalformedCall

_FENCED = re.compile(r"```[a-z]*\s(?P<inside>.*?)\s*```", re.DOTALL)
THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
CALL_OPEN, CALL_CLOSE = "<tool_call>", "</tool_call>"
MAX_RESCUES = 24
"""Open quotes within open quotes, after which no more is looked for."""
_TAGS = re.compile(f"{CALL_OPEN}|{CALL_CLOSE}")

Kind = Literal["reasoning", "text", "tool_call"]


@dataclass(frozen=True)
class ParsedCall:
    """One well-formed call: its arguments are an object, not yet checked against a tool's schema."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class ParsedReply:
    """A reply taken apart. ``reasoning`` and ``text`` carry no white space at their ends."""

    reasoning: str
    text: str
    calls: tuple[ParsedCall, ...]
    malformed: tuple[MalformedCall, ...]


class StreamParser:
    """Splits a reply into deltas while it arrives, however the text is cut into pieces.

    Joined by kind, the deltas are the reasoning, the text and the bodies of the calls. White space at the ends of
    reasoning and text is left out, tags as well. Where thinking is never closed all of it streams as reasoning, and
    :func:`parse_reply` has the last word.
    """

    def __init__(self, opened_thinking: bool = True) -> None:
        self.thinking_closed = False
        self.bodies: list[str] = []
        """The body of every call so far, the last one perhaps unfinished."""
        self._kind: Kind = "reasoning" if opened_thinking else "text"
        self._start = True
        self._pending = ""
        self._spaces: dict[Kind, str | None] = {"reasoning": None, "text": None}
        self._in_string = self._escaped = False

    def feed(self, text: str) -> list[Delta]:
        """Take the next piece of the reply and return what is certain of it; a tag in the making is held back."""
        self._pending += text
        return self._drain(final=False)

    def finish(self) -> list[Delta]:
        """Return what was held back, once the reply has ended."""
        return self._drain(final=True)

    def _drain(self, final: bool) -> list[Delta]:
        deltas: list[Delta] = []
        if self._start and not self._skip_opening(final):
            return deltas
        while self._pending:
            cut, tag = self._next_tag(final)
            self._emit(self._pending[:cut], deltas)
            self._pending = self._pending[cut + len(tag) :]
            if not tag:
                break
            self._switch(tag)
        return deltas

    def _skip_opening(self, final: bool) -> bool:
        """Drop a ``<think>`` that the reply itself begins with; False while that is undecided."""
        head = self._pending.lstrip()
        if not final and THINK_OPEN.startswith(head) and head != THINK_OPEN:
            return False
        self._start = False
        if head.startswith(THINK_OPEN):
            self._pending, self._kind = head[len(THINK_OPEN) :], "reasoning"
        return True

    def _next_tag(self, final: bool) -> tuple[int, str]:
        """Index and text of the next tag that counts here; with no tag, how much of the text is certain."""
        tags = {"reasoning": (THINK_CLOSE,), "text": (CALL_OPEN,), "tool_call": (CALL_CLOSE, CALL_OPEN)}[self._kind]
        text, at = self._pending, 0
        while at < len(text):
            if self._kind == "tool_call":
                if text[at] != "<" or self._in_string:
                    self._track(text[at])
                    at += 1
                    continue
            else:
                at = text.find("<", at)
                if at < 0:
                    return len(text), ""
            for tag in tags:
                if text.startswith(tag, at):
                    return at, tag
            if not final and any(tag.startswith(text[at:]) for tag in tags):
                return at, ""
            at += 1
        return at, ""

    def _track(self, char: str) -> None:
        """Follow JSON strings, where a tag is data. A line break ends a string that was left open."""
        if char == "\n":
            self._in_string = self._escaped = False
        elif self._escaped:
            self._escaped = False
        elif char == "\\":
            self._escaped = self._in_string
        elif char == '"':
            self._in_string = not self._in_string

    def _emit(self, text: str, deltas: list[Delta]) -> None:
        if not text:
            return
        if self._kind == "tool_call":
            self.bodies[-1] += text
            deltas.append(Delta("tool_call", text))
            return
        held = self._spaces[self._kind]
        if held is None:
            text = text.lstrip()
        kept = text.rstrip()
        if kept:
            deltas.append(Delta(self._kind, (held or "") + kept))
            self._spaces[self._kind] = text[len(kept) :]
        elif held is not None:
            self._spaces[self._kind] = held + text

    def _switch(self, tag: str) -> None:
        self._in_string = self._escaped = False
        if tag == CALL_OPEN:
            self._kind = "tool_call"
            self.bodies.append("")
        else:
            self.thinking_closed = self.thinking_closed or tag == THINK_CLOSE
            self._kind = "text"


def parse_reply(raw: str, opened_thinking: bool = True, cut: bool = False) -> ParsedReply:
    """Take a whole reply apart; never raises.

    ``raw`` is what the model produced after the generation prompt, end token excluded. ``opened_thinking`` says that
    the prompt ended inside ``<think>``. Where the thinking is never closed, calls in it count, and without any the
    whole is taken as the answer, because some servers leave the tag out; unless ``cut`` says that the reply stopped at
    its token limit: then it stays reasoning.
    """
    parser = StreamParser(opened_thinking)
    deltas = parser.feed(raw) + parser.finish()
    reasoning, text, bodies = _join(deltas, "reasoning"), _join(deltas, "text"), parser.bodies
    if reasoning and not parser.thinking_closed:
        head, tag, tail = reasoning.partition(CALL_OPEN)
        if tag:
            parser = StreamParser(opened_thinking=False)
            deltas = parser.feed(tag + tail) + parser.finish()
            reasoning, text, bodies = head.rstrip(), _join(deltas, "text"), parser.bodies
        elif not cut:
            reasoning, text = "", reasoning
    calls: list[ParsedCall] = []
    malformed: list[MalformedCall] = []
    for body in bodies:
        for call in _calls_of(body):
            if isinstance(call, ParsedCall):
                calls.append(call)
            else:
                malformed.append(call)
    return ParsedReply(reasoning, text, tuple(calls), tuple(malformed))


def _calls_of(body: str, depth: int = 0) -> list[ParsedCall | MalformedCall]:
    """The call of a body; where that is broken, also the sound calls that its open quotes have swallowed."""
    whole = parse_call(body)
    tag = None if isinstance(whole, ParsedCall) else _TAGS.search(body)
    if tag is None or depth == MAX_RESCUES:
        return [whole]
    parser = StreamParser(opened_thinking=False)
    parser.feed(body[tag.start() :])
    parser.finish()
    swallowed = [call for inner in parser.bodies for call in _calls_of(inner, depth + 1)]
    if not any(isinstance(call, ParsedCall) for call in swallowed):
        return [whole]
    return [parse_call(body[: tag.start()]), *swallowed]


def parse_call(body: str) -> ParsedCall | MalformedCall:
    """Read what stands between the tags of one call; never raises.

    Arguments may be an object, the same as a JSON string, or missing where there are none. Line breaks inside strings
    and a code fence around the whole are forgiven.
    """
    text = body.strip()
    fenced = _FENCED.fullmatch(text)
    text = text if fenced is None else fenced["inside"].strip()

    def wrong(problem: str) -> MalformedCall:
        return MalformedCall(text, problem)

    if not text:
        return wrong("the call is empty")
    try:
        call = _load(text)
    except ValueError as error:
        return wrong(f"the call is not JSON: {error}")
    if not isinstance(call, dict):
        return wrong(f'the call is {_kind_of(call)}, not an object with "name" and "arguments"')
    name = call.get("name")
    if not isinstance(name, str) or not name.strip():
        return wrong('the call has no "name"' if name is None else f'"name" is {_kind_of(name)}, not a tool\'s name')
    key = "arguments" if "arguments" in call else "parameters"
    if key not in call and len(call) > 1:
        return wrong(f'the call has no "arguments"; its keys are {", ".join(map(repr, call))}')
    arguments = call.get(key)
    if isinstance(arguments, str):
        try:
            arguments = _load(arguments) if arguments.strip() else {}
        except ValueError as error:
            return wrong(f'"arguments" is a string that is not JSON: {error}')
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        return wrong(f'"arguments" is {_kind_of(arguments)}, not an object')
    return ParsedCall(name.strip(), arguments)


def _load(text: str) -> Any:
    """JSON to Python. ValueError names the place and quotes what stands there."""
    try:
        value = json.loads(
            text, strict=False, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_once
        )
        json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        rest = text[error.pos : error.pos + 24]
        raise ValueError(f"{error.msg} at character {error.pos}, {f'before {rest!r}' if rest else 'the end'}") from None
    except UnicodeEncodeError:
        raise ValueError("a string holds half of a surrogate pair") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys stand in it once, or each time with the same value."""
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made and made[key] != value:
            raise ValueError(f"the key {key[:24]!r} stands there twice, with different values")
        made[key] = value
    return made


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _finite(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {digits[:24]} is too large")
    return value


def _kind_of(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")


def _join(deltas: list[Delta], kind: Kind) -> str:
    return "".join(delta.text for delta in deltas if delta.kind == kind)
