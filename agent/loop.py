"""The loop: one ``step()`` builds a request, asks, dispatches what was asked for, and records all of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass

from keyeloop.agent.answer_form import AnswerForm, read_answer
from keyeloop.agent.asking import Asker, Stop, reached
from keyeloop.agent.context import Context
from keyeloop.agent.dispatch import Dispatcher, Outcome, clip, refused
from keyeloop.agent.guards import Guards, thinking_closed
from keyeloop.model_backend.base import Delta, ModelBackend, Reply
from keyeloop.runtime.budget import Budget
from keyeloop.runtime.content import Message, Part, Text, ToolCall, images_of
from keyeloop.runtime.events import Event, Noticed, RunStatus, ToolCalled, ToolReturned
from keyeloop.runtime.evidence import View
from keyeloop.runtime.wire import parts_to_wire, to_wire
from keyeloop.tools.base import ToolContext

ANSWER_NOW = "No more tool calls. Answer now with what you have seen, and cite it."
UNFIT = "the answer does not fit"


@dataclass(frozen=True)
class Ending:
    """How a run ended, and what the model said last."""

    status: RunStatus
    text: str
    reason: str = ""


class Loop:
    """One question's turns, from an opened context to its ending."""

    def __init__(
        self,
        backend: ModelBackend,
        context: Context,
        dispatcher: Dispatcher,
        tool_context: ToolContext,
        budget: Budget,
        record: Callable[[Event], None],
        on_delta: Callable[[Delta], None] | None = None,
        result_visual_tokens: int | None = None,
        *,
        form: AnswerForm | None = None,
        turns: int = 0,
        calls: int = 0,
    ) -> None:
        """``form`` is what the answer has to be. ``turns`` and ``calls`` were there before, in earlier questions."""
        self._context, self._dispatcher, self._tool_context = context, dispatcher, tool_context
        self._budget, self._record = budget, record
        self._result_visual_tokens = result_visual_tokens
        self._form, self._form_told = form, False
        self._guards = Guards()
        self._asker = Asker(
            backend, context, tool_context, budget, self._guards, record, on_delta, turns=turns, calls=calls
        )
        self._sequence: tuple[int, ...] = ()
        """Tokens of the last turn, where the backend knows them."""

    async def run(self) -> Ending:
        """Step until the run has an ending.

        Raises BackendError when the model cannot be asked, ToolCrashed for a tool's own error that ends the run.
        """
        while True:
            ending = await self.step()
            if ending is not None:
                return ending

    async def step(self) -> Ending | None:
        """One turn; its ending when it was the last."""
        spent = self._budget.spent()
        if spent is not None:
            self._asker.stop_for("budget", spent, reached(self._budget, spent))
        if self._asker.stop is not None:
            return await self._finish(self._asker.stop)
        if not self._asker.make_room():
            return None
        reply = await self._asker.ask(allow_calls=True)
        if reply is None:  # out of seconds or of context: the next step asks for an answer, or again
            return None
        self._context.append(reply.message)
        if reply.message.tool_calls or reply.malformed:
            await self._act(reply)
            return None
        return self._conclude(reply)

    async def _act(self, reply: Reply) -> None:
        """Make the calls of a reply and quote back what cannot be made."""
        calls = reply.message.tool_calls
        for call in calls:
            self._record(ToolCalled(turn=self._asker.turn, call=call))
        problems = {call.id: self._dispatcher.problem(call) for call in calls}
        usable = any(problem is None for problem in problems.values())
        refusals = {call.id: problems[call.id] or self._refusal(call) for call in calls}
        good = [call for call in calls if refusals[call.id] is None]
        self._tool_context.visual_budget_tokens = self._visual_budget(len(good))
        async with aclosing(self._dispatcher.run(good, self._budget.remaining()["seconds"])) as outcomes:
            for call in calls:
                problem = refusals[call.id]
                outcome = Outcome(refused(call, problem)) if problem is not None else await anext(outcomes)
                self._returned(outcome)
                if outcome.crash is not None:
                    raise outcome.crash
        for incident in self._tool_context.incidents:
            self._record(Noticed(turn=self._asker.turn, code="sandbox", text=incident))
        self._tool_context.incidents.clear()
        if reply.malformed:
            quoted = [f"{broken.problem} in {clip(broken.text)!r}" for broken in reply.malformed]
            self._quote("malformed_call", f"this call could not be read: {'; '.join(quoted)}. Write it again.")
        self._count_format_error(usable)

    def _refusal(self, call: ToolCall) -> str | None:
        """Why a sound call is not made all the same."""
        calls_left = self._budget.remaining()["tool_calls"]
        if calls_left is not None and calls_left < 1:
            return f"{reached(self._budget, 'tool_calls')}; this call was not made"
        self._budget.charge_calls(1)
        repeated = self._guards.repeated_call(call)
        if repeated is not None:
            self._asker.stop_for("stopped", "repeated_call", repeated)
            return f"{repeated}; use the results you have"
        return None

    def _visual_budget(self, calls: int) -> int:
        """Picture tokens that each result of this turn may add."""
        budget = self._context.visual_budget(calls)
        if self._result_visual_tokens is not None:
            budget = min(budget, self._result_visual_tokens)
        remaining = self._budget.remaining()
        for name, known in (("visual_tokens", 0), ("total_tokens", self._context.input_tokens())):
            left = remaining[name]
            if left is not None:  # of total_tokens, the next request takes all that is known, then the pictures
                budget = min(budget, max(0, int(left) - known) // max(1, calls))
        return budget

    def _returned(self, outcome: Outcome) -> None:
        result = outcome.result
        self._record(
            ToolReturned(
                turn=self._asker.turn,
                call_id=result.call_id,
                name=result.name,
                parts=parts_to_wire(result.parts),
                error=result.error,
                views=_views(result.parts),
                details=dict(result.details),
                duration_s=outcome.duration_s,
            )
        )
        self._context.append(Message("tool", result.parts, tool_call_id=result.call_id))
        self._tool_context.remember(result.parts)

    def _conclude(self, reply: Reply) -> Ending | None:
        """The ending that a reply without calls makes; None when it is no answer."""
        endless = self._guards.endless_thinking(reply)
        if endless is not None:
            self._asker.stop_for("stopped", "endless_thinking", endless)
            return None
        text = answer_text(reply)
        if not text:
            self._quote("empty_reply", "the reply was empty. Call a tool or answer.")
            self._count_format_error(usable=False)
            return None
        cut = f"the answer was cut after {reply.usage.output_tokens} tokens" if reply.finish == "length" else ""
        problem = read_answer(self._form, text).problem
        if problem is None:
            return Ending("answered", text, cut)
        if self._form_told:
            return Ending("invalid", text, "; ".join(filter(None, (f"{UNFIT}: {problem}", cut))))
        self._form_told = True
        self._quote("answer_form", f"{UNFIT}: {problem}. Give it again, as JSON that fits the schema.")
        return None

    async def _finish(self, stop: Stop) -> Ending:
        """One last request, for an answer; it is marked with why it was the last."""
        self._quote(stop.code, f"{stop.reason}. {ANSWER_NOW}", notice=stop.reason)
        self._asker.make_room()
        if not self._context.has_room():
            return Ending(stop.status, "", f"{stop.reason}; no room was left for an answer")
        reply = await self._asker.ask(allow_calls=False) or await self._asker.ask(
            allow_calls=False
        )  # again once room is made
        text = "" if reply is None else answer_text(reply)
        problem = read_answer(self._form, text).problem if text else None
        return Ending(stop.status, text, stop.reason if problem is None else f"{stop.reason}; {UNFIT}: {problem}")

    def _quote(self, code: str, text: str, notice: str | None = None) -> None:
        """Tell the model what was wrong, in a user turn."""
        message = Message("user", (Text(f"Error: {text}"),))
        self._record(Noticed(turn=self._asker.turn, code=code, text=notice or text, message=to_wire(message)))
        self._context.append(message)

    def _count_format_error(self, usable: bool) -> None:
        reason = self._guards.format_errors(usable)
        if reason is not None:
            self._asker.stop_for("stopped", "format_errors", reason)


def answer_text(reply: Reply) -> str:
    """What a reply says; thinking that was never closed stands in for a text that is empty."""
    text = reply.message.text.strip()
    return text if text or thinking_closed(reply) else reply.message.reasoning.strip()


def _views(parts: tuple[Part, ...]) -> tuple[View, ...]:
    return tuple(view for part in parts for image in images_of(part) for view in image.views)
