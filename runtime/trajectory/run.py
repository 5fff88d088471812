"""A run read back from its journal: steps, totals, answer, and where it looked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from keyeloop.runtime.content import Message, Text, Usage
from keyeloop.runtime.errors import JournalError
from keyeloop.runtime.events import (
    ContextEdited,
    Event,
    Noticed,
    QuestionAsked,
    ReplyReceived,
    RunEnded,
    RunStart,
    ToolReturned,
)
from keyeloop.runtime.evidence import Citation, View
from keyeloop.runtime.journal import Damage, read_journal, run_media, salvage
from keyeloop.runtime.journal.reading import without_start
from keyeloop.runtime.trajectory.looks import Look, Span, looks_of, spans_of, view_groups
from keyeloop.runtime.trajectory.steps import Status, exchanges_of
from keyeloop.runtime.wire import from_wire, parts_from_wire


class Trajectory:
    """A read view over one run's events; it never changes them.

    ``question``, ``status``, ``answer``, ``citations`` and ``end`` are those of the last question; ``exchanges`` has
    every question, and everything else covers all of them.
    """

    def __init__(self, folder: Path, events: Iterable[Event], damage: Sequence[Damage] = ()) -> None:
        self.folder = folder
        self.events = tuple(events)
        self.damage = tuple(damage)
        """What of the record cannot be read; always empty after :meth:`read`."""
        self.media = run_media(folder)
        first = next(iter(self.events), None)
        if not isinstance(first, RunStart):
            raise JournalError(without_start(folder, self.events))
        self.start = first
        self.exchanges = tuple(exchanges_of(self.events))
        self.steps = tuple(step for exchange in self.exchanges for step in exchange.steps)
        self.end: RunEnded | None = self.exchanges[-1].end

    @classmethod
    def read(cls, folder: Path) -> Trajectory:
        """Read the run in ``folder``, finished or not; JournalError when there is none, and for a damaged one."""
        return cls(folder, read_journal(folder))

    @classmethod
    def salvage(cls, folder: Path) -> Trajectory:
        """Read what can be read of the run in ``folder``; ``damage`` names the rest.

        JournalError when there is none, or its first line, which everything stands on, is lost.
        """
        events, damage = salvage(folder)
        whole = [found for found in damage if not found.torn]
        if whole and not isinstance(next(iter(events), None), RunStart):
            raise JournalError(f"{whole[0]}; a run cannot be read without its first line")
        return cls(folder, events, damage)

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

    @cached_property
    def usage(self) -> Usage:
        """Sum over all replies."""
        return sum((exchange.usage for exchange in self.exchanges), Usage())

    @property
    def duration_s(self) -> float:
        """From the first event to the last, without the time between two questions."""
        return sum(exchange.duration_s for exchange in self.exchanges)

    @property
    def tool_calls(self) -> int:
        """How many calls were made."""
        return sum(len(step.calls) for step in self.steps)

    @cached_property
    def looks(self) -> tuple[Look, ...]:
        """Every picture with an address that the model was shown, in the order in which they were shown."""
        return tuple(looks_of(self.events))

    def views(self) -> dict[str, View]:
        """Every view of the run by handle, in the order of minting."""
        found: dict[str, View] = {}
        for group in view_groups(self.events):
            for view in group:
                found.setdefault(view.handle, view)
        return found

    def looked(self) -> dict[str, tuple[Span, ...]]:
        """Where the run looked: for each source, spans in ascending time, overlapping ones joined.

        The views of one call make one span, however far apart they are: ``gap_s`` tells. A source without times (an
        image) has an empty tuple.
        """
        return spans_of(view_groups(self.events))

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


def _edited(message: Message, edit: ContextEdited) -> Message:
    parts = list(message.parts)
    parts[edit.part] = Text(edit.stub)
    return replace(message, parts=tuple(parts))
