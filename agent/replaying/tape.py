"""The events of a recorded question, given out one by one as the loop comes to them again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from keyeloop.model_backend.base import Reply
from keyeloop.runtime.content import TurnTokens
from keyeloop.runtime.errors import BackendError, InputError
from keyeloop.runtime.events import (
    ContextEdited,
    Event,
    Noticed,
    ReplyReceived,
    RequestSent,
    RunEnded,
    StateRebuilt,
    ToolReturned,
)
from keyeloop.runtime.journal import steady
from keyeloop.runtime.wire import from_wire

CRASH = "crash"
"""Of the notice that a run breaks off with; the loop itself never gives it."""
COUNTED: dict[type[Any], tuple[str, ...]] = {
    RequestSent: ("input_tokens", "visual_tokens"),
    ContextEdited: ("freed_tokens",),
}
"""Estimates of a backend, which learns while it runs: taken from the record."""
_IGNORED = ("seq", "so_far")


class Diverged(InputError):
    """Raised when the loop comes to something else than the record says."""


class RecordEnded(BackendError):
    """Raised where a recorded run was cut off: there is nothing behind to play."""


class Tape:
    """A cursor over what the loop recorded of one question."""

    def __init__(self, asked: Event, events: Iterable[Event], where: str) -> None:
        """``events`` are those behind ``asked``, the question itself; ``where`` names the run in errors."""
        self.asked = asked
        self._events = of_the_loop(events)
        self._where = where
        self._place = 0
        self._sequence: tuple[int, ...] = ()

    @property
    def left(self) -> bool:
        """Whether the record goes on."""
        return self._place < len(self._events)

    @property
    def upcoming(self) -> Event | None:
        """What the loop comes to next, if it does as it did."""
        return self._events[self._place] if self.left else None

    @property
    def last(self) -> Event:
        """What was taken last; at first the question."""
        return self._events[self._place - 1] if self._place else self.asked

    def take(self, event: Event) -> Event:
        """The recorded event in the place of ``event``, which the loop came to. Raises :class:`Diverged`."""
        recorded = self._events[self._place]
        difference = difference_of(recorded, event)
        if difference:
            raise Diverged(f"{self._where} cannot be played again: its event {recorded.seq} {difference}")
        self._place += 1
        return recorded

    def reply(self) -> Reply | None:
        """The reply to the request that was taken last; None where none is recorded."""
        event = self.upcoming
        if not isinstance(event, ReplyReceived):
            return None
        tokens = event.tokens
        if tokens is not None:
            prompt = self._sequence[: tokens.kept] + tokens.prompt_ids
            tokens = TurnTokens(prompt, tokens.ids, tokens.logprobs)
            self._sequence = tokens.sequence()
        message = from_wire(event.message)
        return Reply(message, event.usage, event.finish, event.malformed, event.first_token_s, tokens)

    def result(self, call_id: str) -> ToolReturned | None:
        """What the call gave in the turn that is being played; None where that is not recorded."""
        for event in self._ahead():
            if isinstance(event, ToolReturned) and event.call_id == call_id:
                return event
        return None

    def incidents(self) -> list[str]:
        """What is recorded of this turn's tools going wrong beneath them."""
        return [event.text for event in self._ahead() if isinstance(event, Noticed) and event.code == "sandbox"]

    def edits(self) -> list[ContextEdited]:
        """The edits of the context that come next, without a gap."""
        found: list[ContextEdited] = []
        for event in self._events[self._place :]:
            if not isinstance(event, ContextEdited):
                break
            found.append(event)
        return found

    def ends_with(self, edits: Sequence[ContextEdited]) -> bool:
        """Whether nothing is recorded behind these next edits."""
        return self._place + len(edits) == len(self._events)

    def _ahead(self) -> Iterable[Event]:
        for event in self._events[self._place :]:
            if isinstance(event, RequestSent):
                return
            yield event


def of_the_loop(events: Iterable[Event]) -> list[Event]:
    """Events that the loop itself gives: without ends that became void, crashes, and marks of going on."""
    kept: list[Event] = []
    for event in events:
        if isinstance(event, StateRebuilt):
            kept = [one for one in kept if not isinstance(one, RunEnded)]
        elif not (isinstance(event, Noticed) and event.code == CRASH):
            kept.append(event)
    return kept


def difference_of(recorded: Event, event: Event) -> str:
    """In what ``event`` is not the recorded one, for people; empty where it is."""
    was, now = _compared(recorded), _compared(event)
    if was == now:
        return ""
    if was["kind"] != now["kind"]:
        return f"is {was['kind']}, and now comes {now['kind']}"
    field = next(name for name in now if was.get(name) != now[name])
    return f"({was['kind']}) has another {field}: recorded {_short(was.get(field))}, now {_short(now[field])}"


def with_recorded_counts(event: Event, recorded: Event) -> Event:
    """``event`` with the recorded estimates in the place of its own."""
    fields = COUNTED.get(type(recorded), ())
    return event.model_copy(update={name: getattr(recorded, name) for name in fields}) if fields else event


def _compared(event: Event) -> dict[str, Any]:
    value: dict[str, Any] = steady(event)
    for name in (*COUNTED.get(type(event), ()), *_IGNORED):
        value.pop(name, None)
    return value


def _short(value: Any, limit: int = 120) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= limit else text[:limit] + "..."
