"""A run's requests, one after another: room made for each, sent, charged, recorded, the calls of its reply numbered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from keyeloop.agent.context import Context, Edit
from keyeloop.agent.guards import Guards
from keyeloop.model_backend.base import Delta, ModelBackend, Reply
from keyeloop.runtime.budget import Budget
from keyeloop.runtime.content import TurnTokens
from keyeloop.runtime.errors import ContextOverflow
from keyeloop.runtime.events import ContextEdited, Event, ReplyReceived, RequestSent, RunStatus
from keyeloop.runtime.wire import to_wire
from keyeloop.tools.base import ToolContext


@dataclass(frozen=True)
class Stop:
    """Why no more calls are made: the next request asks for an answer."""

    status: RunStatus
    code: str
    reason: str


class OutOfSeconds(TimeoutError):
    """Raised by the replies of a recorded run where no reply came because its seconds were used up."""


class Asker:
    """Asks the model what its context holds, as long as budget and context last."""

    def __init__(
        self,
        backend: ModelBackend,
        context: Context,
        tool_context: ToolContext,
        budget: Budget,
        guards: Guards,
        record: Callable[[Event], None],
        on_delta: Callable[[Delta], None] | None = None,
        *,
        turns: int = 0,
        calls: int = 0,
    ) -> None:
        """``turns`` and ``calls`` were there before, in earlier questions."""
        self._backend, self._context, self._tool_context = backend, context, tool_context
        self._budget, self._guards = budget, guards
        self._record, self._on_delta = record, on_delta
        self._calls = calls
        self._sequence: tuple[int, ...] = ()
        self.turn = turns
        """Requests so far."""
        self.stop: Stop | None = None
        """The first reason to stop, once there is one."""

    def stop_for(self, status: RunStatus, code: str, reason: str) -> None:
        """Make no more calls; the first reason stays."""
        self.stop = self.stop or Stop(status, code, reason)

    async def ask(self, *, allow_calls: bool) -> Reply | None:
        """One request; None when it ran out of seconds or the context was too long after all.

        Then ``stop`` says why, or room was made, and it can be asked again. Raises BackendError when the model cannot
        be asked.
        """
        self.turn += 1
        seconds_left = None
        if allow_calls:
            self._budget.charge_turn()
            seconds_left = self._budget.remaining()["seconds"]
        request, size = self._context.request(allow_calls=allow_calls)
        self._record(
            RequestSent(
                turn=self.turn,
                messages=len(request.messages),
                input_tokens=size.input_tokens,
                visual_tokens=size.visual_tokens,
                allow_calls=allow_calls,
            )
        )
        clock = self._tool_context.clock
        started_s = clock.monotonic()
        try:
            async with asyncio.timeout(seconds_left) as limit:
                reply = await self._backend.generate(request, self._tool_context.media, self._on_delta)
        except TimeoutError as error:
            if not (limit.expired() or isinstance(error, OutOfSeconds)):
                raise
            self.stop_for("budget", "seconds", reached(self._budget, "seconds"))
            return None
        except ContextOverflow as error:  # the count was an estimate, and too low
            if not self._evict(self._context.halve()):
                self.stop_for("budget", "context", f"the model's context is full: {error}")
            return None
        reply = self._number_calls(replace(reply, usage=self._budget.priced(reply.usage)))
        self._budget.charge_usage(reply.usage)
        self._record(
            ReplyReceived(
                turn=self.turn,
                message=to_wire(reply.message),
                usage=reply.usage,
                finish=reply.finish,
                malformed=reply.malformed,
                first_token_s=reply.first_token_s,
                duration_s=clock.monotonic() - started_s,
                tokens=self._tokens(reply),
            )
        )
        return reply

    def make_room(self) -> bool:
        """Evict pictures where a whole reply does not fit; False when that was not enough, and the run must end."""
        self._evict(self._context.fit())
        if self._context.left_tokens() >= 0:
            return True
        self.stop_for("budget", "context", "the model's context is full")
        return False

    def _evict(self, edits: Sequence[Edit]) -> bool:
        """Record pictures that have left the context; whether there were any."""
        if edits:
            self._budget.forget_pictures(sum(edit.visual_tokens for edit in edits))
            self._guards.pictures_left()
        for edit in edits:
            self._record(
                ContextEdited(
                    turn=self.turn + 1,
                    message=edit.message,
                    part=edit.part,
                    evicted=edit.handles,
                    stub=edit.stub,
                    freed_tokens=edit.freed_tokens,
                )
            )
        return bool(edits)

    def _tokens(self, reply: Reply) -> TurnTokens | None:
        """The exact tokens of a turn, where they are known; what the turn before holds is not written again."""
        if reply.tokens is None:
            return None
        before, self._sequence = self._sequence, reply.tokens.sequence()
        return reply.tokens.after(before)

    def _number_calls(self, reply: Reply) -> Reply:
        """Calls are numbered through the run, so that ids are unique and the same in an equal run."""
        calls = tuple(
            replace(call, id=f"call-{number}") for number, call in enumerate(reply.message.tool_calls, self._calls + 1)
        )
        self._calls += len(calls)
        return replace(reply, message=replace(reply.message, tool_calls=calls)) if calls else reply


def reached(budget: Budget, name: str) -> str:
    """``the limit of seconds is reached (60)``."""
    return f"the limit of {name} is reached ({getattr(budget.limits, name):g})"
