"""Runs of three requests against a server that spoils one of them, in the words of both clients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from keyeloop.model_backend.base import ModelBackend
from keyeloop.model_backend.openai_chat.backend import OpenAIChat
from keyeloop.model_backend.served.sending import Timeouts
from keyeloop.model_backend.sglang.native.backend import SGLangNative
from keyeloop.model_backend.toolcalls import THINK_CLOSE
from tests.model_backend.loopback_server import LoopbackServer, Play, Player, Received, counts, delta, event, loopback
from tests.model_backend.native_replies import events, native_server, spoken

READ_S = 0.25
TIMEOUTS = Timeouts(connect_s=5, read_s=READ_S, total_s=20)
TRIES = 3
TURNS = (("look", '{"at_s": 83.0}'), ("add", '{"a": 821, "b": 383}'), ("1204", ""))
"""What the model does: a call with a picture, a call, an answer."""
ANSWER = TURNS[-1][0]
Fault = Callable[[list[bytes]], Play]
"""A good reply's pieces, spoilt."""


@dataclass(frozen=True)
class Dialect:
    """One client, and a server that speaks to it."""

    serve: Callable[[Player], AbstractContextManager[LoopbackServer]]
    client: Callable[[LoopbackServer], ModelBackend]
    pieces: Callable[[int, Received], list[bytes]]
    """The good reply to request 0, 1, 2; from the first piece on it has begun."""
    output_tokens: tuple[int, ...]
    """What the server counts for each."""


def _chat_pieces(turn: int, request: Received) -> list[bytes]:
    name, arguments = TURNS[turn]
    if not arguments:
        return [delta(content=name[:2]), delta(content=name[2:]), delta("stop"), counts(40, 3), event("[DONE]")]
    head = {"index": 0, "id": "x", "type": "function", "function": {"name": name, "arguments": arguments[:4]}}
    tail = {"index": 0, "function": {"arguments": arguments[4:]}}
    calls = [delta(tool_calls=[head]), delta(tool_calls=[tail]), delta("tool_calls")]
    return [*calls, counts(10 * (turn + 1), 3), event("[DONE]")]


def _native_text(turn: int) -> str:
    name, arguments = TURNS[turn]
    call = f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'
    return f"so\n{THINK_CLOSE}\n\n{call if arguments else name}"


def _native_pieces(turn: int, request: Received) -> list[bytes]:
    return events(spoken(_native_text(turn)), len(request.json["input_ids"]))


CHAT = Dialect(
    serve=loopback,
    client=lambda server: OpenAIChat(
        f"{server.address}#m", context_tokens=8192, pictures="tool", call_form="native", timeouts=TIMEOUTS, tries=TRIES
    ),
    pieces=_chat_pieces,
    output_tokens=(3, 3, 3),
)
NATIVE = Dialect(
    serve=native_server,
    client=lambda server: SGLangNative(f"{server.native}#keye-tiny", timeouts=TIMEOUTS, tries=TRIES),
    pieces=_native_pieces,
    output_tokens=tuple(len(spoken(_native_text(turn))) for turn in range(3)),
)


@dataclass
class Spoiling:
    """The server's side: request number ``turn`` is spoilt the first ``times`` times that it is asked."""

    dialect: Dialect
    turn: int
    fault: Fault
    times: int = 1
    asked: list[int] = field(default_factory=list)
    """The turn of every request that came."""

    def __call__(self, request: Received) -> Play:
        turn = turn_of(request.json)
        self.asked.append(turn)
        pieces = self.dialect.pieces(turn, request)
        spoilt = turn == self.turn and self.asked.count(turn) <= self.times
        return self.fault(pieces) if spoilt else Play(pieces=tuple(pieces))


def turn_of(body: Mapping[str, Any]) -> int:
    """Which request of the run this is, by what it holds of the replies before it."""
    if "messages" in body:
        return sum(message["role"] == "assistant" for message in body["messages"])
    ids = body["input_ids"]
    return sum(_holds(ids, spoken(_native_text(turn))) for turn in range(2))


def _holds(ids: list[int], part: list[int]) -> bool:
    return any(ids[at : at + len(part)] == part for at in range(len(ids) - len(part) + 1))
