"""One recorded question about to be played again: where it stands, what is recorded of it, and what is written anew."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from keyeloop.agent.past import Past
from keyeloop.agent.replaying.context import TapedContext
from keyeloop.agent.replaying.tape import RecordEnded, Tape, with_recorded_counts
from keyeloop.agent.versions import versions
from keyeloop.model_backend.base import ModelBackend, Request, Sampling
from keyeloop.runtime.budget import Budget
from keyeloop.runtime.events import Event, QuestionAsked, RebuiltCall, RunEnded, RunStart, StateRebuilt
from keyeloop.runtime.journal import Journal
from keyeloop.runtime.views import ViewBook
from keyeloop.runtime.wire import from_wire


@dataclass
class Playback:
    """A question's record, the journal that it goes on in, and how the two meet.

    Its question is in the journal already. Events that come as recorded are passed over, or written again where
    ``writes``. The first one that is new waits until :meth:`settle` has rebuilt what later calls stand on.
    """

    journal: Journal
    asked: RunStart | QuestionAsked
    tape: Tape
    start_event: RunStart
    """How the run began, in the journal."""
    before: Past | None = None
    """The questions before this one."""
    writes: bool = False
    """The journal is another than the recorded one: what is played goes into it too."""
    marks: bool = True
    """Where the record ends, ``state_rebuilt`` says so."""
    stops: bool = False
    """Nothing is played behind the end of the record."""
    last_turn: int = 0
    """The last that is recorded as begun, in this question and those before."""

    def __post_init__(self) -> None:
        self._held: list[Event] = []
        self._settled = False
        self._rebuild: Callable[[], Awaitable[tuple[RebuiltCall, ...]]] | None = None
        self._emit: Callable[[Event], None] = lambda _: None

    @property
    def new(self) -> bool:
        """Whether what is recorded from now on was not recorded before."""
        return self._settled or not (self.marks or self.stops)

    def context(self, backend: ModelBackend, sampling: Sampling, budget: Budget) -> TapedContext:
        """What the model was told when the question was asked; pictures of earlier questions are not charged."""
        asked = [from_wire(message) for message in self.asked.messages]
        if self.before is None:
            return TapedContext(self.tape, backend, self.start_event.tools, sampling, asked)
        history, opening = self.before.history, len(self.before.run.start.messages)
        budget.recall_pictures(backend.count_tokens(Request(history, self.start_event.tools, sampling)).visual_tokens)
        context = TapedContext(self.tape, backend, self.start_event.tools, sampling, history[:opening])
        recorded = history[: len(history) - len(self.before.cut_off)]
        context.append(*recorded[opening:], *asked)
        return context

    def views(self) -> ViewBook:
        """The views of the questions before."""
        return ViewBook() if self.before is None else self.before.views()

    def start(self, emit: Callable[[Event], None], rebuild: Callable[[], Awaitable[tuple[RebuiltCall, ...]]]) -> None:
        """Say who is told of events, and who rebuilds; the question itself is told now."""
        self._emit, self._rebuild = emit, rebuild
        if self.before is not None:
            emit(self.start_event)
        emit(self.asked)

    def record(self, event: Event) -> None:
        """Take an event of the loop: held against the record while that lasts, written behind it."""
        if not self.tape.left and self.stops:
            raise RecordEnded("the record ends here")
        if self.tape.left:
            recorded = self.tape.take(event)
            again = with_recorded_counts(event, recorded)
            self._emit(self.journal.append(again) if self.writes else recorded)
        elif self._settled or not self.marks:
            self._emit(self.journal.append(event))
        else:
            self._held.append(event)

    async def settle(self) -> None:
        """Rebuild the state of tools and go on in earnest; once, where the record ends."""
        if self.stops:
            raise RecordEnded("the record ends here")
        if self._settled or not self.marks:
            return
        assert self._rebuild is not None, "a session starts before it plays"
        self._go_on(await self._rebuild())

    def end(self, event: RunEnded, *, broken_off: bool) -> None:
        """The question is over. Nothing is written of one that broke off before it got beyond its record."""
        if broken_off and not self.new:
            return
        if self.marks and not self._settled:
            self._go_on(())
        self.record(event)

    def _go_on(self, calls: tuple[RebuiltCall, ...]) -> None:
        self._settled = True
        self._emit(self.journal.append(StateRebuilt(turn=self.last_turn, calls=calls, versions=versions())))
        held, self._held = self._held, []
        for event in held:
            self._emit(self.journal.append(event))


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a recorded configuration that a session takes, in its types."""
    from keyeloop.runtime.budget import Limits
    from keyeloop.runtime.prices import Prices

    prices = config.get("prices")
    taken: dict[str, Any] = {
        "limits": Limits(**config.get("limits", {})),
        "prices": None if prices is None else Prices(**prices),
        "sampling": Sampling(**config.get("sampling", {})),
        "result_visual_tokens": config.get("result_visual_tokens"),
    }
    if "on_tool_crash" in config:
        taken["on_tool_crash"] = config["on_tool_crash"]
    return taken
