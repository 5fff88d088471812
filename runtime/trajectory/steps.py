"""The turns of a run, question by question: what was asked, what came back, what was done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from keyeloop.runtime.content import Usage
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
    StateRebuilt,
    ToolCalled,
    ToolReturned,
)

Status = RunStatus | Literal["in flight"]


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
    rebuilt: list[StateRebuilt] = field(default_factory=list)
    """Where the run went on in another process, in this turn."""
    began_s: float = 0.0
    """When its first event was written, in seconds since the epoch."""
    ended_s: float = 0.0
    """When its last was."""

    @property
    def cached_share(self) -> float | None:
        """Of the input, from 0 to 1: served from a cache. None without a reply."""
        if self.reply is None or not self.reply.usage.input_tokens:
            return None
        return self.reply.usage.cached_tokens / self.reply.usage.input_tokens


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

    @cached_property
    def usage(self) -> Usage:
        """Sum over its replies."""
        return sum((step.reply.usage for step in self.steps if step.reply), Usage())


def exchanges_of(events: Sequence[Event]) -> Iterable[Exchange]:
    """The questions among events that begin with ``run_start``."""
    begins = [index for index, event in enumerate(events) if isinstance(event, RunStart | QuestionAsked)]
    for number, (begin, stop) in enumerate(zip(begins, [*begins[1:], len(events)], strict=True), 1):
        asked, own = events[begin], events[begin + 1 : stop]
        assert isinstance(asked, RunStart | QuestionAsked)
        yield Exchange(number, asked, tuple(_steps(own)), _end(own), own[-1].time_s if own else asked.time_s)


def _end(events: Sequence[Event]) -> RunEnded | None:
    """The last end, unless the question went on behind it."""
    for event in reversed(events):
        if isinstance(event, RunEnded):
            return event
        if isinstance(event, StateRebuilt):
            return None
    return None


def _steps(events: Iterable[Event]) -> Iterable[Step]:
    """Turns in the order in which they began; what is recorded of one may be split by a notice of another."""
    steps: dict[int, Step] = {}
    for event in events:
        if event.kind == "run_start" or event.kind == "question" or event.kind == "run_end":
            continue
        step = steps.get(event.turn)
        if step is None:
            step = steps[event.turn] = Step(event.turn, began_s=event.time_s)
        step.ended_s = event.time_s
        if event.kind == "request":
            step.request = event
        elif event.kind == "reply":
            step.reply = event
        elif event.kind == "tool_call":
            step.calls.append(CallStep(event))
        elif event.kind == "tool_result":
            for call in step.calls:
                if call.called.call.id == event.call_id:
                    call.returned = event
        elif event.kind == "notice":
            step.notices.append(event)
        elif event.kind == "context_edit":
            step.edits.append(event)
        else:
            step.rebuilt.append(event)
    return steps.values()
