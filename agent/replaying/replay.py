"""A whole recorded run played again into a new folder: from its record alone, or with its tools for real."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keyeloop.agent.past import Past, recorded_tools
from keyeloop.agent.playing import played
from keyeloop.agent.replaying.opening import require_pictures, task_of
from keyeloop.agent.replaying.playback import Playback, settings_of
from keyeloop.agent.replaying.tape import RecordEnded, Tape, of_the_loop
from keyeloop.agent.session import Session
from keyeloop.model_backend.base import Capabilities, Delta, Reply, Request
from keyeloop.model_backend.replay import ReplayBackend
from keyeloop.model_backend.scripted import deltas
from keyeloop.runtime.clock import Clock, SystemClock
from keyeloop.runtime.content import Part, ToolSpec, Usage
from keyeloop.runtime.errors import BackendError, ToolError
from keyeloop.runtime.events import Event, QuestionAsked, ReplyReceived, RunEnded, RunStart
from keyeloop.runtime.journal import Journal, steady
from keyeloop.runtime.journal.pictures import pictures_of
from keyeloop.runtime.media import MediaStore
from keyeloop.runtime.trajectory import Exchange, Trajectory
from keyeloop.runtime.wire import from_wire
from keyeloop.tools.base import Tool, ToolContext
from keyeloop.tools.toolset import Toolset
from keyeloop.tools.video.recorded import RecordedDecoder

BROKEN_OFF = ("failed", "interrupted")
"""Ends that came from outside the loop."""


@dataclass(frozen=True)
class Replayed:
    """What came of playing a run again."""

    folder: Path
    """The new run."""
    events: int
    cut_off: bool
    """The recorded run has no end of its own: it was played as far as it goes."""


async def replay(folder: Path, into: Path, tools: Iterable[Tool] | None = None, clock: Clock | None = None) -> Replayed:
    """Play the run in ``folder`` again into the new folder ``into``.

    Without ``tools`` all results are the recorded ones, and every event must come as it was recorded: Diverged names
    the first that does not. With ``tools`` the recorded replies are given whatever the tools return now, and the new
    run is to be compared with the old. No model is asked in either case. Raises InputError for a run that lacks
    pictures or tools.
    """
    clock = clock or SystemClock()
    run = Trajectory.read(folder)
    require_pictures(run)
    chosen = recorded_tools(run.start, Toolset(tools)) if tools is not None else None
    cut_off = False
    for exchange in run.exchanges:
        journal = Journal.create(into, clock) if exchange.number == 1 else Journal.reopen(into, clock)
        try:
            playback = _opened(run, exchange, journal, recorded=chosen is None)
            session = _session(run, exchange, playback, chosen, clock)
            async for _ in played(session, deltas=False):
                pass
        except RecordEnded:
            cut_off = True
        finally:
            journal.close()
    new = Trajectory.read(into)
    if chosen is None:
        _require_same(run, new)
    return Replayed(into, len(new.events), cut_off)


def _opened(run: Trajectory, exchange: Exchange, journal: Journal, *, recorded: bool) -> Playback:
    """The question in the new journal, with its record; without one, all but the replies is done anew."""
    before = None if exchange.number == 1 else Past.of(journal, Trajectory.read(journal.folder))
    events = [event for event in of_the_loop(own_events(run, exchange)) if not _broken_off(event)]
    for sha256 in pictures_of([exchange.asked, *(events if recorded else ())]):
        journal.media.put_bytes(run.media.read(sha256))
    asked = journal.append(exchange.asked)
    assert isinstance(asked, RunStart | QuestionAsked)
    tape = Tape(asked, events if recorded else (), f"the run in {run.folder}")
    return Playback(journal, asked, tape, run.start, before, writes=True, marks=False, stops=recorded)


def _session(run: Trajectory, exchange: Exchange, playback: Playback, tools: Toolset | None, clock: Clock) -> Session:
    task = task_of(exchange.asked, run.start, run.folder)
    settings: dict[str, Any] = settings_of(exchange.asked.config)
    model = Reciting(run, exchange) if tools is not None else Silent(run)
    return Session(
        task=task,
        pixels={},
        system="",
        backend=model,
        tools=tools if tools is not None else Toolset(StandIn(spec) for spec in run.start.tools),
        runs=playback.journal.folder.parent,
        clock=clock,
        decoder=RecordedDecoder(task.sources.values()),
        playback=playback,
        **settings,
    )


class Silent:
    """A model that is never asked: all its replies are recorded. Counts and picture sizes are as recorded."""

    def __init__(self, run: Trajectory) -> None:
        self._folder = run.folder
        self._like = ReplayBackend(run.folder)

    def capabilities(self) -> Capabilities:
        return self._like.capabilities()

    def count_tokens(self, request: Request) -> Usage:
        return self._like.count_tokens(request)

    async def generate(
        self, request: Request, media: MediaStore, on_delta: Callable[[Delta], None] | None = None
    ) -> Reply:
        """Raises :class:`RecordEnded`."""
        raise RecordEnded(f"the record of {self._folder} ends here")

    async def close(self) -> None:
        """Nothing to free."""


class Reciting(Silent):
    """Gives the replies of a question in order, whatever it is asked."""

    def __init__(self, run: Trajectory, exchange: Exchange) -> None:
        super().__init__(run)
        self._replies = [event for event in of_the_loop(own_events(run, exchange)) if isinstance(event, ReplyReceived)]

    async def generate(
        self, request: Request, media: MediaStore, on_delta: Callable[[Delta], None] | None = None
    ) -> Reply:
        """The next reply; RecordEnded behind the last."""
        if not self._replies:
            return await super().generate(request, media, on_delta)
        event = self._replies.pop(0)
        reply = Reply(from_wire(event.message), event.usage, event.finish, event.malformed, event.first_token_s)
        for delta in deltas(reply.message) if on_delta is not None else ():
            on_delta(delta)  # type: ignore[misc]
        return reply


class StandIn:
    """A tool of which only the record is left: it is described as it was, and never called."""

    def __init__(self, spec: ToolSpec) -> None:
        self.spec = spec
        self.timeout_s = 1.0

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> tuple[Part, ...]:
        """Raises ToolError: its results are recorded."""
        raise ToolError(f"{self.spec.name} is not called in a replay")

    async def close(self, context: ToolContext) -> None:
        """Nothing to free."""


def own_events(run: Trajectory, exchange: Exchange) -> Sequence[Event]:
    """The events behind a question, up to the next."""
    begin = run.events.index(exchange.asked) + 1
    following = run.exchanges[exchange.number :]
    return run.events[begin : run.events.index(following[0].asked) if following else len(run.events)]


def _require_same(run: Trajectory, new: Trajectory) -> None:
    """The loop has checked each event as it came; this checks that none is missing or one too many."""
    was = [steady(event) for event in of_the_loop(run.events) if not _broken_off(event)]
    now = [steady(event) for event in new.events]
    for one in (*was, *now):
        one.pop("seq")
        one.pop("so_far", None)
    for place, (one, other) in enumerate(zip(was, now, strict=False)):
        if one != other:
            raise BackendError(f"event {place} of the replay differs from the recorded one: {one} and {other}")
    if len(was) != len(now):
        raise BackendError(f"the replay has {len(now)} events, the record {len(was)}")


def _broken_off(event: Event) -> bool:
    return isinstance(event, RunEnded) and event.status in BROKEN_OFF
