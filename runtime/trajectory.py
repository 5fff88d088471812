"""A run read back from its journal: steps, totals, answer, and where it looked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

from keyeloop.runtime.content import Message, Part, Text, Usage, images_of
from keyeloop.runtime.errors import JournalError
from keyeloop.runtime.events import (
    ContextEdited,
    Event,
    Noticed,
    QuestionAsked,
    ReplyReceived,
    RequestSent,
    RunEnded,
    RunStart,
    RunStatus,
    ToolCalled,
    ToolReturned,
)
from keyeloop.runtime.evidence import Citation, View
from keyeloop.runtime.journal import MEDIA, read_journal
from keyeloop.runtime.media import MediaStore
from keyeloop.runtime.wire import from_wire, parts_from_wire

Status = RunStatus | Literal["in flight"]


@dataclass(frozen=True)
class Span:
    """A stretch of a source that was looked at, in presentation seconds; one frame has no length."""

    times_s: tuple[float, ...]
    """The moments that were shown, ascending, each once."""
    views: int
    """Crops included."""

    @property
    def start_s(self) -> float:
        """The first moment."""
        return self.times_s[0]

    @property
    def end_s(self) -> float:
        """The last moment."""
        return self.times_s[-1]

    @property
    def gap_s(self) -> float:
        """The longest time in it of which nothing was shown."""
        return max((later - earlier for earlier, later in pairwise(self.times_s)), default=0.0)


@dataclass
class CallStep:
    """One tool call and what came of it; no result when the run was cut off before."""

    called: ToolCalled
    returned: ToolReturned | None = None


@dataclass
class Step:
    """One turn: what was asked, what came back, what was done."""

    turn: int
    request: RequestSent | None = None
    reply: ReplyReceived | None = None
    calls: list[CallStep] = field(default_factory=list)
    notices: list[Noticed] = field(default_factory=list)
    edits: list[ContextEdited] = field(default_factory=list)


@dataclass(frozen=True)
class Exchange:
    """One question of a run, the steps that it took and how it ended."""

    number: int
    """1 for the task, 2, 3, ... for what was asked after it."""
    asked: RunStart | QuestionAsked
    steps: tuple[Step, ...]
    end: RunEnded | None
    last_s: float
    """When its last event was written, in seconds since the epoch."""

    @property
    def question(self) -> str:
        return self.asked.question

    @property
    def duration_s(self) -> float:
        """From its first event to its last."""
        return self.last_s - self.asked.time_s

    @property
    def usage(self) -> Usage:
        """Sum over its replies."""
        return sum((step.reply.usage for step in self.steps if step.reply), Usage())


class Trajectory:
    """A read view over one run's events; it never changes them.

    ``question``, ``status``, ``answer``, ``citations`` and ``end`` are those of the last question; ``exchanges`` has
    every question, and everything else covers all of them.
    """

    def __init__(self, folder: Path, events: Iterable[Event]) -> None:
        self.folder = folder
        self.events = tuple(events)
        self.media = MediaStore(folder / MEDIA)
        first = next(iter(self.events), None)
        if not isinstance(first, RunStart):
            raise JournalError(f"the journal in {folder} does not begin with run_start: the run was cut off at once")
        self.start = first
        self.exchanges = tuple(_exchanges(self.events))
        self.steps = tuple(step for exchange in self.exchanges for step in exchange.steps)
        self.end: RunEnded | None = self.exchanges[-1].end

    @classmethod
    def read(cls, folder: Path) -> Trajectory:
        """Read the run in ``folder``, finished or not; JournalError when there is none."""
        return cls(folder, read_journal(folder))

    @property
    def question(self) -> str:
        return self.exchanges[-1].question

    @property
    def status(self) -> Status:
        """How the last question ended; ``in flight`` while (or because) no end is recorded."""
        return self.end.status if self.end else "in flight"

    @property
    def answer(self) -> str:
        return self.end.answer if self.end else ""

    @property
    def citations(self) -> tuple[Citation, ...]:
        return self.end.citations if self.end else ()

    @property
    def usage(self) -> Usage:
        """Sum over all replies."""
        return sum((step.reply.usage for step in self.steps if step.reply), Usage())

    @property
    def duration_s(self) -> float:
        """From the first event to the last, without the time between two questions."""
        return sum(exchange.duration_s for exchange in self.exchanges)

    @property
    def tool_calls(self) -> int:
        """How many calls were made."""
        return sum(len(step.calls) for step in self.steps)

    def views(self) -> dict[str, View]:
        """Every view of the run by handle, in the order of minting."""
        found: dict[str, View] = {}
        for group in self._view_groups():
            for view in group:
                found.setdefault(view.handle, view)
        return found

    def looked(self) -> dict[str, tuple[Span, ...]]:
        """Where the run looked: for each source, spans in ascending time, overlapping ones joined.

        The views of one call make one span, however far apart they are: ``gap_s`` tells. A source without times (an
        image) has an empty tuple.
        """
        spans: dict[str, list[Span]] = {}
        for group in self._view_groups():
            for name in dict.fromkeys(view.source for view in group):
                times = [view.time_s for view in group if view.source == name and view.time_s is not None]
                found = spans.setdefault(name, [])
                if times:
                    found.append(Span(tuple(sorted(set(times))), len(times)))
        return {name: _joined(found) for name, found in spans.items()}

    def messages(self) -> tuple[Message, ...]:
        """The context as the next request would carry it, evicted pictures replaced by their stubs."""
        history = [from_wire(message) for message in self.start.messages]
        for event in self.events:
            match event:
                case ReplyReceived():
                    history.append(from_wire(event.message))
                case ToolReturned():
                    history.append(Message("tool", parts_from_wire(event.parts), tool_call_id=event.call_id))
                case QuestionAsked():
                    history += [from_wire(message) for message in event.messages]
                case Noticed(message=message) if message is not None:
                    history.append(from_wire(message))
                case ContextEdited():
                    history[event.message] = _edited(history[event.message], event)
        return tuple(history)

    def _view_groups(self) -> Iterator[tuple[View, ...]]:
        """Views that appeared together: in one opening message, or in one tool result."""
        for opening in self.start.messages:
            yield _shown(parts_from_wire(opening.parts))
        for event in self.events:
            if isinstance(event, ToolReturned):
                yield event.views or _shown(parts_from_wire(event.parts))


def _steps(events: Iterable[Event]) -> Iterable[Step]:
    """Turns in the order in which they began; what is recorded of one may be split by a notice of another."""
    steps: dict[int, Step] = {}
    for event in events:
        if isinstance(event, RunStart | QuestionAsked | RunEnded):
            continue
        step = steps.setdefault(event.turn, Step(event.turn))
        match event:
            case RequestSent():
                step.request = event
            case ReplyReceived():
                step.reply = event
            case ToolCalled():
                step.calls.append(CallStep(event))
            case ToolReturned():
                for call in step.calls:
                    if call.called.call.id == event.call_id:
                        call.returned = event
            case Noticed():
                step.notices.append(event)
            case ContextEdited():
                step.edits.append(event)
    return steps.values()


def _exchanges(events: Sequence[Event]) -> Iterable[Exchange]:
    begins = [index for index, event in enumerate(events) if isinstance(event, RunStart | QuestionAsked)]
    for number, (begin, stop) in enumerate(zip(begins, [*begins[1:], len(events)], strict=True), 1):
        asked, own = events[begin], events[begin + 1 : stop]
        assert isinstance(asked, RunStart | QuestionAsked)
        end = next((event for event in reversed(own) if isinstance(event, RunEnded)), None)
        yield Exchange(number, asked, tuple(_steps(own)), end, own[-1].time_s if own else asked.time_s)


def _shown(parts: Iterable[Part]) -> tuple[View, ...]:
    return tuple(image.view for part in parts for image in images_of(part) if image.view is not None)


def _joined(spans: list[Span]) -> tuple[Span, ...]:
    joined: list[Span] = []
    for span in sorted(spans, key=lambda span: span.times_s):
        if joined and span.start_s <= joined[-1].end_s:
            last = joined[-1]
            joined[-1] = Span(tuple(sorted({*last.times_s, *span.times_s})), last.views + span.views)
        else:
            joined.append(span)
    return tuple(joined)


def _edited(message: Message, edit: ContextEdited) -> Message:
    parts = list(message.parts)
    parts[edit.part] = Text(edit.stub)
    return replace(message, parts=tuple(parts))
