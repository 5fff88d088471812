"""The public face: an agent has a model and tools, and runs tasks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Unpack

from keyeloop.agent.answer import Answer
from keyeloop.agent.answer_form import answer_form
from keyeloop.agent.argument_check import check_schemas
from keyeloop.agent.batch import many
from keyeloop.agent.builtin import builtin_tools
from keyeloop.agent.inputs import CheckedTask, Examination, PathLike, read_images
from keyeloop.agent.loading import Loading
from keyeloop.agent.models import ModelLike
from keyeloop.agent.past import Past
from keyeloop.agent.playing import StreamEvent as StreamEvent
from keyeloop.agent.playing import play_to_end, played, require_no_loop
from keyeloop.agent.prompt import system_text
from keyeloop.agent.replaying.again import play_again
from keyeloop.agent.replaying.opening import open_to_fork, open_to_resume
from keyeloop.agent.replaying.playback import Playback
from keyeloop.agent.request_plan import RequestPlan, plan_request
from keyeloop.agent.session import Session
from keyeloop.agent.task import Options, Task, examine
from keyeloop.agent.watching import Watch, check_watch, schedule_videos
from keyeloop.model_backend.base import ModelBackend, Sampling
from keyeloop.runtime.budget import Limits
from keyeloop.runtime.clock import Clock, SystemClock
from keyeloop.runtime.config import Config, load_config
from keyeloop.runtime.errors import ConfigError
from keyeloop.runtime.evidence import Source
from keyeloop.runtime.picture import Pixels
from keyeloop.runtime.prices import Prices
from keyeloop.tools.base import Tool
from keyeloop.tools.decorate import OnCrash
from keyeloop.tools.toolset import Toolset
from keyeloop.tools.video.decoder import Decoder
from keyeloop.tools.video.recorded import RecordedDecoder


class Agent:
    """Answers questions about videos and images by looking, calling tools and citing what it saw.

    ``model`` is ``keye-tiny``, the folder of a checkpoint, ``http://host:port/v1#name``, ``replay:RUN``, or a backend.
    ``tools`` are all the tools that the model may call; left out, it gets the built-in ones. With ``prices`` every
    usage tells its cost. ``deps`` is for tools that read it from their ``ToolContext``. ``on_tool_crash`` says what an
    exception of a tool that is no ToolError does, where the tool does not say itself: it ends the run (``end``) or is
    told to the model (``continue``). ``runs`` is where every run gets a folder of its own. What is not given is taken
    from ``settings``, and those, where they are not given, from the environment (``KEYELOOP_*``) and ``keyeloop.toml``,
    as on the command line: ``Config()`` reads neither.
    """

    def __init__(
        self,
        model: ModelLike | None = None,
        tools: Iterable[Tool] | None = None,
        *,
        limits: Limits | None = None,
        prices: Prices | None = None,
        sampling: Sampling | None = None,
        runs: PathLike | None = None,
        system: str | None = None,
        result_visual_tokens: int | None = None,
        clock: Clock | None = None,
        deps: Any = None,
        on_tool_crash: OnCrash | None = None,
        settings: Config | None = None,
    ) -> None:
        settings = load_config() if settings is None else settings
        self._model = Loading(model, settings)
        self._tools = None if tools is None else Toolset(tools)
        check_schemas(self._tools or ())
        self._limits = limits or settings.limits
        self._prices = prices or settings.prices
        if self._limits.cost is not None and self._prices is None:
            raise ConfigError("a limit of cost needs prices: set price_input and price_output (of a million tokens)")
        self._sampling = sampling or Sampling(
            settings.temperature, settings.top_p, settings.top_k, settings.max_tokens, settings.seed
        )
        self._system = system_text(tools=self._tools is None or len(self._tools) > 0) if system is None else system
        self._result_visual_tokens = result_visual_tokens or settings.result_visual_tokens
        self._clock = clock or SystemClock()
        self._documents = settings.documents
        named = settings.model if model is None or not isinstance(model, str | os.PathLike) else os.fspath(model)
        self._settings = settings.model_copy(update={"model": named})
        self._deps = deps
        self._on_tool_crash = on_tool_crash or settings.on_tool_crash
        self.runs = Path(settings.runs if runs is None else runs)

    async def run(self, task: Task | str, **options: Unpack[Options]) -> Answer:
        """Run one task to its end: a question, and its options as keywords.

        ``video``, ``videos``, ``images`` and ``documents`` are what it may look at. ``watch`` puts frames of the videos
        into the first message: ``whole`` as many as the model's context has room for, ``overview`` a few; ``none``, the
        default, leaves all looking to tools. ``answer`` is the type of its answer, which ``Answer.value`` then holds: a
        pydantic model, int, list[str], ... ``deps`` stands in for the agent's own. A :class:`Task` holds them all.

        Raises InputError for inputs that cannot be used, before anything is recorded, and OperatorError (BackendError
        and the like) when the model could not be asked; the run's record then tells why. When cancelled, it aborts the
        request, closes the record as interrupted and says on stderr how to go on.
        """
        asked = Task.of(task, **options)
        asked = replace(asked, answer=answer_form(asked.answer))
        end, folder = await play_to_end(self.stream(asked, deltas=False), self.runs)
        return Answer.from_end(end, folder, self, asked.answer, asked.deps)

    def run_sync(self, task: Task | str, **options: Unpack[Options]) -> Answer:
        """As :meth:`run`, for scripts; Ctrl-C raises KeyboardInterrupt after the record is closed.

        Raises UsageError where an event loop runs already, as in a notebook.
        """
        require_no_loop("run_sync", "agent.run")
        return asyncio.run(self.run(task, **options))

    def stream(
        self, task: Task | str, *, deltas: bool = True, **options: Unpack[Options]
    ) -> AsyncGenerator[StreamEvent, None]:
        """As :meth:`run`, yielding its events as they happen, ``run_start`` first and ``run_end`` last.

        Journalled events are written when they are yielded; a Delta is a piece of a reply and is not, nor is Watching,
        which tells before ``run_start`` how far frames of ``watch`` are decoded. Without ``deltas`` replies come whole
        only. Closing the iterator ends the run as interrupted. Raises as :meth:`run` does.
        """
        return self._stream(self._asked(task, options), deltas)

    async def plan(self, task: Task | str, **options: Unpack[Options]) -> RequestPlan:
        """What the first request of such a run would hold; nothing is decoded, hashed, recorded or asked of the model.

        A server may be asked for its list of models, a backend of one's own for its capabilities. Raises InputError as
        :meth:`run` does.
        """
        asked = self._asked(task, options)
        with Decoder() as decoder:
            examined = await asyncio.to_thread(examine, asked, decoder, hashed=False)
        counter = await asyncio.to_thread(self._model.counting)
        tools = self._tools_for(examined.task().sources.values(), examined.documents)
        plan = await asyncio.to_thread(
            plan_request, examined, asked.watch, counter, self._system, tools, self._limits, self._prices
        )
        return replace(plan, note=self._model.pictures_note(counter) if plan.sources else "")

    async def ask(self, run: PathLike, question: str, *, answer: Any = None, deps: Any = None) -> Answer:
        """Go on with a recorded run: another question in the same conversation, as :meth:`Answer.ask` does.

        ``run`` is its folder; nothing is decoded again, and source files are needed only where a tool looks again.
        Raises InputError for a run that cannot go on (no run, missing pictures or tools), JournalError for one that is
        still going on, and else as :meth:`run`.
        """
        form = answer_form(answer)
        end, folder = await play_to_end(self.stream_ask(run, question, answer=form, deps=deps), self.runs, Path(run))
        return Answer.from_end(end, folder, self, form, deps)

    def ask_sync(self, run: PathLike, question: str, *, answer: Any = None, deps: Any = None) -> Answer:
        """As :meth:`ask`, for scripts; see :meth:`run_sync`."""
        require_no_loop("ask_sync", "agent.ask")
        return asyncio.run(self.ask(run, question, answer=answer, deps=deps))

    async def stream_ask(
        self, run: PathLike, question: str, *, answer: Any = None, deps: Any = None
    ) -> AsyncGenerator[StreamEvent, None]:
        """As :meth:`ask`, yielding events as :meth:`stream` does: ``question`` first and ``run_end`` last."""
        form = answer_form(answer)
        past = await asyncio.to_thread(Past.open, Path(run), self._clock)
        try:
            task = past.task(question, form)
            tools = past.choose(self._tools_for(task.sources.values(), task.documents))
            backend = await asyncio.to_thread(self._model.load)
            with RecordedDecoder(task.sources.values()) as decoder:
                session = self._session(task, {}, backend, tools, decoder, past)
                async with aclosing(played(replace(session, deps=self._deps_for(deps)))) as events:
                    async for event in events:
                        yield event
        finally:
            past.close()

    async def resume(self, run: PathLike, *, deps: Any = None) -> Answer:
        """Go on with a run that was cut off (killed, interrupted, failed), to the end that it would have come to.

        Nothing that is recorded is asked or called again, but for calls that later ones stand on (``python``): these
        are made again, compared, and told in a ``state_rebuilt`` event. Limits and sampling are the recorded ones. A
        pydantic answer type comes back as the JSON that it was made from. Raises InputError for a run that has ended,
        or that takes another way now (other tools or another version), and else as :meth:`ask`.
        """
        end, folder = await play_to_end(self.stream_resume(run, deps=deps), self.runs, Path(run))
        return Answer.from_end(end, folder, self, deps=deps)

    def stream_resume(self, run: PathLike, *, deps: Any = None) -> AsyncGenerator[StreamEvent, None]:
        """As :meth:`resume`, yielding events as :meth:`stream` does; those that are recorded come first."""
        return self._again(partial(open_to_resume, Path(run), self._clock), deps)

    def stream_fork(self, run: PathLike, turn: int, *, deps: Any = None) -> AsyncGenerator[StreamEvent, None]:
        """Begin a new run that is the recorded one up to its turn ``turn``, and ask the model anew from there.

        Model and sampling are this agent's own; the rest of the run is taken over. Events come as in
        :meth:`stream_resume`, ``run_start`` with the new name first. Raises InputError for a turn that there is not.
        """
        run_id = self._clock.run_id()
        opened = partial(open_to_fork, Path(run), turn, self.runs / run_id, run_id, self._clock)
        return self._again(opened, deps, forked=True)

    async def run_many(self, tasks: Iterable[Task | str], concurrency: int = 8) -> list[many.TaskOutcome]:
        """Run many tasks, at most ``concurrency`` at a time; their outcomes in the order of the tasks.

        A task that fails is an outcome with its reason and does not disturb the others. A model that answers one
        request at a time makes the others wait, which their ``Limits.seconds`` count. Cancelling ends every open run as
        interrupted. Raises InputError and ConfigError, before anything runs, for what are no tasks and for a
        concurrency below 1.
        """
        return await many.run_many(lambda _: self, tasks, concurrency)

    def stream_many(self, tasks: Iterable[Task | str], concurrency: int = 8) -> AsyncGenerator[many.TaskOutcome, None]:
        """As :meth:`run_many`, yielding each outcome as it comes. Closing the iterator ends the open runs."""
        return many.stream_many(lambda _: self, tasks, concurrency)

    async def close(self) -> None:
        """Free the model, if this agent loaded it; idempotent."""
        await self._model.close()

    async def __aenter__(self) -> Agent:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _asked(self, task: Task | str, options: Options) -> Task:
        asked = Task.of(task, **options)
        return replace(asked, documents=self._documents) if asked.documents is None else asked

    async def _stream(self, asked: Task, deltas: bool) -> AsyncGenerator[StreamEvent, None]:
        with Decoder() as decoder:
            examined = await asyncio.to_thread(examine, asked, decoder)
            session = await self._opened(examined, decoder, check_watch(asked.watch))
            async with aclosing(played(replace(session, deps=self._deps_for(asked.deps)), deltas)) as events:
                async for event in events:
                    yield event

    async def _opened(self, examined: Examination, decoder: Decoder, watch: Watch) -> Session:
        backend = await asyncio.to_thread(self._model.load)
        task = await asyncio.to_thread(examined.task)
        facts = await asyncio.to_thread(backend.capabilities)  # a client may have to ask its server
        tools, most = self._tools_for(task.sources.values(), task.documents), self._limits.visual_tokens
        schedules = schedule_videos(task, examined, watch, facts, self._system, tools.specs, most)
        pixels = await asyncio.to_thread(read_images, task, facts.cost, decoder)
        return replace(self._session(task, pixels, backend, tools, decoder), watch=watch, schedules=schedules)

    def _again(
        self, opened: Callable[[], Playback], deps: Any, *, forked: bool = False
    ) -> AsyncGenerator[StreamEvent, None]:
        def session(task: CheckedTask, backend: ModelBackend, tools: Toolset, decoder: Decoder) -> Session:
            return replace(self._session(task, {}, backend, tools, decoder), deps=self._deps_for(deps))

        return play_again(opened, self._model.load, self._tools_for, session, own_sampling=forked)

    def _deps_for(self, given: Any) -> Any:
        return self._deps if given is None else given

    def _tools_for(self, sources: Iterable[Source], documents: Path | None) -> Toolset:
        if self._tools is not None:
            return self._tools
        return builtin_tools({one.kind for one in sources}, documents, self._settings)

    def _session(
        self,
        task: CheckedTask,
        pixels: Mapping[str, Pixels],
        backend: ModelBackend,
        tools: Toolset,
        decoder: Decoder,
        past: Past | None = None,
    ) -> Session:
        return Session(
            task=task,
            pixels=pixels,
            system=self._system,
            backend=backend,
            tools=tools,
            limits=self._limits,
            prices=self._prices,
            sampling=self._sampling,
            result_visual_tokens=self._result_visual_tokens,
            runs=self.runs,
            clock=self._clock,
            decoder=decoder,
            model=self._model.name,
            past=past,
            on_tool_crash=self._on_tool_crash,
        )
