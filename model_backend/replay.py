"""A backend that gives a recorded run's replies again, and refuses where the new run asks something else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from keyeloop.model_backend.base import Capabilities, Delta, ModelBackend, Reply, Request
from keyeloop.model_backend.cost_record import cost_from_record
from keyeloop.model_backend.scripted import ScriptedBackend, deltas
from keyeloop.runtime.content import Message, Usage
from keyeloop.runtime.errors import BackendError
from keyeloop.runtime.events import ReplyReceived, RequestSent
from keyeloop.runtime.media import MediaStore
from keyeloop.runtime.trajectory import Trajectory
from keyeloop.runtime.wire import from_wire


@dataclass(frozen=True)
class Turn:
    """A recorded request and its reply; no reply when the run was cut off while it was awaited."""

    messages: tuple[Message, ...]
    allow_calls: bool
    reply: Reply | None


class ReplayBackend:
    """Replies of the run in ``folder``, in order. BackendError names the first message that differs.

    A run of several questions is one row of requests; the first request may be any of them, and the others follow it.
    ``like`` lends its capabilities and its token counts, so that tools plan and contexts are cut as they were. Without
    it pictures are planned as recorded, but text is counted as a scripted model's: a run whose context was cut (its
    record has ``context_edit``) needs ``like``.
    """

    def __init__(self, folder: Path, *, like: ModelBackend | None = None) -> None:
        run = Trajectory.read(folder)
        self._folder = folder
        self._like = like or ScriptedBackend([], context_tokens=int(run.start.config.get("context_tokens", 32_768)))
        lent = self._like.capabilities()
        recorded = cost_from_record(run.start.config.get("visual_cost")) if like is None else None
        self._capabilities = replace(lent, model=run.start.model, cost=recorded or lent.cost)
        self._tools = run.start.tools
        self._turns = recorded_turns(run)
        self._next = 0

    def capabilities(self) -> Capabilities:
        """Those of ``like``, or the recorded picture sizes, under the recorded model's name."""
        return self._capabilities

    def count_tokens(self, request: Request) -> Usage:
        """As ``like`` counts."""
        return self._like.count_tokens(request)

    async def generate(
        self, request: Request, media: MediaStore, on_delta: Callable[[Delta], None] | None = None
    ) -> Reply:
        """The recorded reply to this very request."""
        if self._next == 0:
            same = (index for index, turn in enumerate(self._turns) if not self._difference(turn, request))
            self._next = next(same, 0)
        number = self._next + 1
        if number > len(self._turns):
            raise BackendError(f"{self._folder} has {len(self._turns)} requests; there is no request {number} in it")
        turn = self._turns[self._next]
        difference = self._difference(turn, request)
        if difference:
            raise BackendError(f"request {number} is not the recorded one of {self._folder}: {difference}")
        if turn.reply is None:
            raise BackendError(f"{self._folder} was cut off before the reply to request {number} came")
        self._next += 1
        if on_delta is not None:
            for delta in deltas(turn.reply.message):
                on_delta(delta)
        return turn.reply

    async def close(self) -> None:
        """Nothing to free."""

    def _difference(self, turn: Turn, request: Request) -> str:
        if request.tools != self._tools:
            was, now = ([tool.name for tool in tools] or ["none"] for tools in (self._tools, request.tools))
            same = ", with other descriptions or parameters" if was == now else ""
            return f"its tools differ: recorded with {', '.join(was)}, now {', '.join(now)}{same}"
        for index, (recorded, asked) in enumerate(zip(turn.messages, request.messages, strict=False)):
            if not _same(recorded, asked):
                return f"message {index} ({asked.role}) differs"
        if len(turn.messages) != len(request.messages):
            return f"{len(request.messages)} messages instead of {len(turn.messages)}"
        return "" if request.allow_calls == turn.allow_calls else "calls are allowed in one of them only"


def recorded_turns(run: Trajectory) -> list[Turn]:
    """Every request of a run with the messages it held, rebuilt from the journal, and its reply."""
    turns: list[Turn] = []
    for index, event in enumerate(run.events):
        if isinstance(event, RequestSent):
            messages = Trajectory(run.folder, run.events[:index]).messages()
            turns.append(Turn(messages, event.allow_calls, None))
        elif isinstance(event, ReplyReceived):
            reply = Reply(from_wire(event.message), event.usage, event.finish, event.malformed, event.first_token_s)
            turns[-1] = replace(turns[-1], reply=reply)
    return turns


def _same(recorded: Message, asked: Message) -> bool:
    """Equal as far as a model can tell: ids of calls are not shown to it."""
    return replace(_without_ids(recorded), tool_call_id=None) == replace(_without_ids(asked), tool_call_id=None)


def _without_ids(message: Message) -> Message:
    return replace(message, tool_calls=tuple(replace(call, id="") for call in message.tool_calls))
