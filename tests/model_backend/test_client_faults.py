"""Both clients against a server that spoils each request of a run in each way: a right answer or a recorded reason."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from keyeloop.agent.agent import Agent
from keyeloop.model_backend.served import sending
from keyeloop.runtime.errors import BackendError
from keyeloop.runtime.events import ReplyReceived, RequestSent, RunEnded, ToolReturned
from keyeloop.runtime.trajectory import Trajectory
from tests.agent.small_tools import add, look
from tests.model_backend.faulty_runs import ANSWER, CHAT, NATIVE, READ_S, TRIES, Dialect, Fault, Spoiling
from tests.model_backend.loopback_server import Play, failed

JSON = {"Content-Type": "application/json"}
BEGUN = "the reply had begun, so it was not asked again"
SHORT_S = 0.02
"""So that what was sent is there before the connection is cut."""

PASSING: dict[str, Fault] = {
    "refused with 429": lambda _: failed(429, "slow down"),
    "refused with 500": lambda _: failed(500, "out of memory"),
    "dropped before an answer": lambda _: Play(status=0, cut=True),
    "dropped behind the head": lambda _: Play(pieces=(SHORT_S,), cut=True),
    "ended behind the head": lambda _: Play(),
    "ended in the first event": lambda pieces: Play(pieces=(pieces[0][:20],)),
    "ended in the first event, in half a character": lambda _: Play(pieces=(b'data: {"a": "\xc3',)),
    "a whole reply, truncated": lambda _: Play(headers=JSON | {"Content-Length": "900"}, pieces=(b'{"a": 1',)),
    "no reply before the end": lambda _: Play(pieces=(b"data: [DONE]\n\n",)),
}
"""Nothing of a reply has come, so the same request may be sent again."""
FINAL: dict[str, tuple[Fault, str]] = {
    "stalled": (lambda _: Play(pieces=(9.0,)), f"sent nothing for {READ_S} s"),
    "stalled in the reply": (lambda pieces: Play(pieces=(pieces[0], 9.0)), f"sent nothing for {READ_S} s; {BEGUN}"),
    "dropped in the reply": (lambda pieces: Play(pieces=(pieces[0], SHORT_S), cut=True), BEGUN),
    "ended in the reply": (lambda pieces: Play(pieces=(pieces[0],)), BEGUN),
    "ended in an event": (lambda pieces: Play(pieces=(pieces[0], pieces[1][:30])), BEGUN),
    "ended in half a character": (lambda pieces: Play(pieces=(pieces[0], b'data: {"a": "\xc3')), BEGUN),
    "garbage for a whole reply": (lambda _: Play(headers=JSON, pieces=(b'{"choices": [{',)), "sent what is not JSON"),
    "garbage": (lambda _: Play(pieces=(b"data: {garbage\n\n",)), "sent what is not JSON"),
    "garbage in the reply": (lambda pieces: Play(pieces=(pieces[0], b"data: {garbage\n\n")), "sent what is not JSON"),
    "half a character in an event": (lambda _: Play(pieces=(b'data: {"a": "\xc3"}\n\n',)), "a line that is not UTF-8"),
}
"""The server may still be at work, or has sent what it would send again: a second request could be a second bill."""
DIALECTS = pytest.mark.parametrize("dialect", [CHAT, NATIVE], ids=["chat", "native"])


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "FIRST_PAUSE_S", 0.005)


async def play(dialect: Dialect, spoiling: Spoiling, folder: Path) -> tuple[Trajectory, BackendError | None]:
    """One run, and what it raised."""
    with dialect.serve(spoiling) as server:
        model = dialect.client(server)
        error: BackendError | None = None
        try:
            await Agent(model, tools=[look, add], runs=folder).run("What is the sum?")
        except BackendError as raised:
            error = raised
        await model.close()
    (run,) = folder.glob("[!.]*")
    return Trajectory.read(run), error


def check(dialect: Dialect, run: Trajectory, replies: int) -> RunEnded:
    """The record holds ``replies`` replies and all that followed from them, each counted once."""
    ended = run.events[-1]
    assert isinstance(ended, RunEnded)
    got = [event for event in run.events if isinstance(event, ReplyReceived)]
    assert [event.turn for event in got] == list(range(1, replies + 1))
    assert sum(isinstance(event, RequestSent) for event in run.events) == min(3, replies + 1)
    assert [event.name for event in run.events if isinstance(event, ToolReturned)] == ["look", "add"][:replies]
    assert [event.usage.output_tokens for event in got] == list(dialect.output_tokens[:replies])
    assert ended.usage.output_tokens == sum(dialect.output_tokens[:replies])
    assert ended.usage.input_tokens == sum(event.usage.input_tokens for event in got)
    return ended


@DIALECTS
@pytest.mark.parametrize("name", PASSING)
async def test_what_passes_is_asked_again(name: str, dialect: Dialect, tmp_path: Path) -> None:
    for turn in range(3):
        spoiling = Spoiling(dialect, turn, PASSING[name], times=TRIES - 1)
        run, error = await play(dialect, spoiling, tmp_path / str(turn))
        ended = check(dialect, run, 3)
        assert error is None and (ended.status, ended.answer) == ("answered", ANSWER)
        assert Counter(spoiling.asked) == Counter({0: 1, 1: 1, 2: 1}) + Counter({turn: TRIES - 1})


@DIALECTS
@pytest.mark.parametrize("name", FINAL)
async def test_what_does_not_pass_is_the_recorded_reason(name: str, dialect: Dialect, tmp_path: Path) -> None:
    fault, reason = FINAL[name]

    async def spoilt(turn: int) -> None:
        spoiling = Spoiling(dialect, turn, fault)
        run, error = await play(dialect, spoiling, tmp_path / str(turn))
        ended = check(dialect, run, turn)
        assert error is not None and reason in str(error)
        assert (ended.status, ended.reason) == ("failed", f"BackendError: {error}")
        assert spoiling.asked == list(range(turn + 1)), "not asked again: it could be billed again"

    await asyncio.gather(*map(spoilt, range(3)))


@DIALECTS
@pytest.mark.parametrize("name", ["refused with 429", "refused with 500", "dropped before an answer"])
async def test_what_never_passes_is_the_recorded_reason(name: str, dialect: Dialect, tmp_path: Path) -> None:
    for turn in range(3):
        spoiling = Spoiling(dialect, turn, PASSING[name], times=99)
        run, error = await play(dialect, spoiling, tmp_path / str(turn))
        ended = check(dialect, run, turn)
        assert error is not None and f"(tried {TRIES} times)" in str(error)
        assert ended.status == "failed" and ended.reason.endswith(str(error))
        assert spoiling.asked == [*range(turn), *[turn] * TRIES]
