"""One question of a run: its record, its tools' context; from run_start or question to run_end whatever happens."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from keyeloop.agent.context import Context
from keyeloop.agent.dispatch import Dispatcher
from keyeloop.agent.footage import CODE as UNLIKE_BOARDS
from keyeloop.agent.footage import doubts
from keyeloop.agent.inputs import CheckedTask, opening_parts
from keyeloop.agent.loop import Ending, Loop
from keyeloop.agent.past import Past
from keyeloop.agent.replaying.clock import TapedClock
from keyeloop.agent.replaying.dispatcher import TapedDispatcher
from keyeloop.agent.replaying.model import TapedModel
from keyeloop.agent.replaying.playback import Playback
from keyeloop.agent.versions import versions
from keyeloop.agent.watching import Watch, Watching, watch_videos
from keyeloop.agent.working import Working
from keyeloop.model_backend.base import Delta, ModelBackend, Request, Sampling
from keyeloop.model_backend.cost_record import cost_to_record
from keyeloop.runtime.budget import Budget, Limits
from keyeloop.runtime.citations import resolve
from keyeloop.runtime.clock import Clock
from keyeloop.runtime.content import Message, Text
from keyeloop.runtime.errors import KeyeloopError
from keyeloop.runtime.events import Event, Noticed, QuestionAsked, RunEnded, RunStart
from keyeloop.runtime.journal import Journal
from keyeloop.runtime.picture import Pixels
from keyeloop.runtime.prices import Prices
from keyeloop.runtime.views import ViewBook
from keyeloop.runtime.wire import to_wire
from keyeloop.tools.base import ToolContext
from keyeloop.tools.decorate import OnCrash
from keyeloop.tools.toolset import Toolset
from keyeloop.tools.video.decoder import Decoder
from keyeloop.tools.video.frames import STATE_KEY, close_decoder
from keyeloop.tools.video.schedule import Schedule
from keyeloop.tools.video.whole import Stored

CLOSE_TIMEOUT_S = 10.0
"""How long a tool may take to free what it keeps."""


@dataclass(frozen=True)
class Session:
    """Everything one question stands on; :meth:`play` plays it once."""

    task: CheckedTask
    pixels: Mapping[str, Pixels]
    """Image inputs, decoded."""
    system: str
    backend: ModelBackend
    tools: Toolset
    limits: Limits
    prices: Prices | None
    sampling: Sampling
    result_visual_tokens: int | None
    runs: Path
    clock: Clock
    decoder: Decoder
    model: str | None = None
    """What the model was named, where it was by a name that loads it again."""
    past: Past | None = None
    """The run that goes on with this question; None begins a new one."""
    deps: Any = field(default=None, repr=False)
    """For the tools, see :class:`ToolContext`."""
    watch: Watch = "none"
    schedules: Mapping[str, Schedule] = field(default_factory=dict)
    """Frames of videos that the first message shows, by the name of their source."""
    on_tool_crash: OnCrash = "end"
    playback: Playback | None = None
    """A recorded question that is played again, in the place of the task; None asks afresh."""

    async def play(self, emit: Callable[[Event | Delta | Watching | Working], None], deltas: bool = True) -> None:
        """Play from run_start or question to run_end; what goes wrong is recorded, then raised.

        Pieces of replies, and how far calls are, are emitted where ``deltas`` are wanted.
        """
        played = self.playback
        clock = self.clock if played is None else TapedClock(played.tape, self.clock)
        run_id, budget = clock.run_id(), Budget(self.limits, clock, self.prices)
        started_s = clock.monotonic()
        past = self.past if played is None else played.before
        turns, calls = (0, 0) if past is None else (past.turns, past.calls)
        watched: dict[str, tuple[Stored, ...]] = {}
        if self.schedules:
            watched = await watch_videos(self.task, self.schedules, self.decoder, self.runs / run_id, emit)
        with self._journal(run_id) as journal:
            for holder in (self.backend, *self.tools):
                journal.conceal(getattr(holder, "secrets", ()))
            tool_context = self._tool_context(journal, clock)
            backend: ModelBackend = self.backend

            def record(event: Event) -> None:
                if played is None:
                    emit(journal.append(event))
                else:
                    played.record(event)

            def end(ending: Ending, *, broken_off: bool = True) -> None:
                citations = resolve(ending.text, tool_context.views, self.task.sources.values())
                ended = RunEnded(
                    status=ending.status,
                    answer=ending.text,
                    citations=citations,
                    usage=budget.usage,
                    reason=ending.reason,
                    duration_s=clock.monotonic() - started_s,
                )
                if played is None:
                    record(ended)
                else:
                    played.end(ended, broken_off=broken_off)

            try:
                dispatcher = self._dispatcher(tool_context, emit if deltas else None)
                context: Context
                if played is not None:
                    backend = TapedModel(played.tape, backend, played.settle)
                    context = played.context(backend, self._sampling(), budget)
                    assert isinstance(dispatcher, TapedDispatcher)
                    played.start(emit, dispatcher.rebuild)
                elif self.past is None:
                    context = self._open(run_id, tool_context, record, watched)
                else:
                    context = self._reopen(self.past, budget, record)
                if past is None:
                    await self._doubt(tool_context, record)
                tool_context.remember(part for message in context.messages for part in message.parts)
                visual = self.result_visual_tokens
                loop = Loop(
                    backend, context, dispatcher, tool_context, budget, record,
                    emit if deltas else None, visual,
                    form=self.task.form, turns=turns, calls=calls,
                )  # fmt: skip
                ending = await loop.run()
            except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
                end(Ending("interrupted", "", "cancelled from outside"))
                raise
            except Exception as error:
                if not isinstance(error, KeyeloopError) and (played is None or played.new):
                    turn = turns + int(budget.used()["turns"])
                    record(Noticed(turn=turn, code="crash", text=traceback.format_exc()))
                end(Ending("failed", "", f"{type(error).__name__}: {error}"))
                raise
            else:
                end(ending, broken_off=False)
            finally:
                await self._close(tool_context)
                await asyncio.to_thread(journal.close)  # waits for the disk

    def _dispatcher(self, context: ToolContext, on_progress: Callable[[Working], None] | None) -> Dispatcher:
        if self.playback is None:
            return Dispatcher(self.tools, context, self.on_tool_crash, on_progress)
        tape, settle = self.playback.tape, self.playback.settle
        return TapedDispatcher(tape, settle, self.tools, context, self.on_tool_crash, on_progress)

    async def _doubt(self, tool_context: ToolContext, record: Callable[[Event], None]) -> None:
        """Say where the footage is nothing for the model; where that is recorded, it is not looked at again."""
        tape = None if self.playback is None else self.playback.tape
        if tape is not None and tape.left:
            if isinstance(tape.upcoming, Noticed) and tape.upcoming.code == UNLIKE_BOARDS:
                record(tape.upcoming)
            return
        doubt = await doubts(self.backend.capabilities().model, self.task, self.pixels, tool_context)
        if doubt is not None:
            record(Noticed(turn=1, code=UNLIKE_BOARDS, text=doubt))

    def _journal(self, run_id: str) -> Journal:
        if self.playback is not None:
            return self.playback.journal
        return Journal.create(self.runs / run_id, self.clock) if self.past is None else self.past.journal

    def _views(self) -> ViewBook:
        if self.playback is not None:
            return self.playback.views()
        return ViewBook() if self.past is None else self.past.views()

    def _tool_context(self, journal: Journal, clock: Clock) -> ToolContext:
        return ToolContext(
            inputs=dict(self.task.sources),
            media=journal.media,
            views=self._views(),
            cost=self.backend.capabilities().cost,
            visual_budget_tokens=0,
            clock=clock,
            documents=self.task.documents,
            state={STATE_KEY: self.decoder},
            deps=self.deps,
        )

    def _open(
        self,
        run_id: str,
        tool_context: ToolContext,
        record: Callable[[Event], None],
        watched: Mapping[str, tuple[Stored, ...]],
    ) -> Context:
        """Record how the run begins, and begin its context so."""
        parts = opening_parts(self.task, self.pixels, tool_context, watched)
        opening = [Message("system", (Text(self.system),)), Message("user", parts)]
        context = Context(self.backend, self.tools.specs, self._sampling(), opening)
        record(
            RunStart(
                run_id=run_id,
                question=self.task.question,
                model=self.backend.capabilities().model,
                tools=self.tools.specs,
                inputs=tuple(self.task.sources.values()),
                messages=tuple(to_wire(message) for message in opening),
                config=self._config(),
                versions=versions(),
            )
        )
        return context

    def _reopen(self, past: Past, budget: Budget, record: Callable[[Event], None]) -> Context:
        """Record the question, and put it behind everything that was said; pictures shown before are not charged."""
        asked = Message("user", (Text(self.task.asked),))
        record(
            QuestionAsked(
                number=len(past.run.exchanges) + 1,
                question=self.task.question,
                model=self.backend.capabilities().model,
                messages=tuple(to_wire(message) for message in (*past.cut_off, asked)),
                config=self._config(),
                versions=versions(),
            )
        )
        tools, sampling, opening = past.run.start.tools, self._sampling(), len(past.run.start.messages)
        budget.recall_pictures(self.backend.count_tokens(Request(past.history, tools, sampling)).visual_tokens)
        context = Context(self.backend, tools, sampling, past.history[:opening])
        context.append(*past.history[opening:], asked)
        return context

    def _sampling(self) -> Sampling:
        """As asked for, with replies of at most a quarter of the context."""
        longest = max(1, self.backend.capabilities().context_tokens // 4)
        return replace(self.sampling, max_tokens=min(self.sampling.max_tokens, longest))

    def _config(self) -> dict[str, Any]:
        capabilities = self.backend.capabilities()
        watch = {"watch": self.watch} if self.schedules else {}
        return {
            **watch,
            "model": self.model,
            "limits": asdict(self.limits),
            "prices": None if self.prices is None else asdict(self.prices),
            "sampling": asdict(self._sampling()),
            "context_tokens": capabilities.context_tokens,
            "visual_cost": cost_to_record(capabilities.cost),
            "result_visual_tokens": self.result_visual_tokens,
            "documents": None if self.task.documents is None else str(self.task.documents),
            **({} if self.task.form is None else {"answer_schema": self.task.form.schema}),
            **({} if self.on_tool_crash == "end" else {"on_tool_crash": self.on_tool_crash}),
        }

    async def _close(self, tool_context: ToolContext) -> None:
        """Free what the tools keep; one that fails or hangs does not keep the others from it."""
        closing = [asyncio.ensure_future(tool.close(tool_context)) for tool in self.tools]
        if closing:
            _, late = await asyncio.wait(closing, timeout=CLOSE_TIMEOUT_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*closing, return_exceptions=True)
        close_decoder(tool_context)
