"""Many tasks at once: each is a run of its own, with an outcome of its own, whatever becomes of the others."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import to_jsonable_python

from keyeloop.agent.answer import Answer
from keyeloop.agent.answer_form import answer_form
from keyeloop.agent.task import Task
from keyeloop.runtime.content import Usage
from keyeloop.runtime.errors import ConfigError, InputError
from keyeloop.runtime.events import RunEnded, RunStart, RunStatus

if TYPE_CHECKING:
    from keyeloop.agent.agent import Agent


@dataclass(frozen=True)
class TaskOutcome:
    """What became of one task: an answer, or the reason why there is none."""

    task: Task
    index: int
    """Place of the task among those that were given, from 0."""
    status: RunStatus
    """As the run's record ends; ``failed`` also where no run could begin."""
    answer: Answer | None
    """None where the model could not be asked or the inputs could not be used."""
    reason: str = ""
    """Why, where the status is not ``answered``."""
    error: BaseException | None = None
    """What :meth:`Agent.run` would have raised; None where there is an answer."""
    run: Path | None = None
    """Folder of the run's record; None where no run could begin."""
    model: str = ""
    """Who was asked, in the backend's words; empty where no run could begin."""
    usage: Usage = field(default_factory=Usage)
    """Sum over the run's requests, also of a run that failed."""
    seconds: float = 0.0
    """From the opening of its inputs to its end, waiting for a busy model included."""

    def to_json(self) -> dict[str, Any]:
        """For a program: as :meth:`Answer.to_json`, with the task's id, the model and the seconds."""
        made: dict[str, Any] = to_jsonable_python(
            {
                "id": self.task.id,
                "status": self.status,
                "answer": "" if self.answer is None else str(self.answer),
                "text": "" if self.answer is None else self.answer.text,
                **(
                    {}
                    if self.answer is None or self.answer.form is None
                    else {"value": to_jsonable_python(self.answer.value, fallback=str)}
                ),
                "reason": self.reason,
                "citations": () if self.answer is None else self.answer.citations,
                "run": None if self.run is None else str(self.run),
                "model": self.model,
                "usage": self.usage,
                "seconds": round(self.seconds, 3),
            }
        )
        return made


async def stream_many(
    choose: Callable[[Task], Agent], tasks: Iterable[Task | str], concurrency: int = 8
) -> AsyncGenerator[TaskOutcome, None]:
    """Run tasks, at most ``concurrency`` at a time, and yield each outcome as it comes; ``choose`` names its agent.

    A task that fails is an outcome like the others. Closing the iterator, or cancelling whoever awaits it, begins no
    more runs and ends the open ones as interrupted, recorded so. Raises ConfigError for a concurrency below 1 and
    InputError for tasks that are none, before anything runs.
    """
    waiting = deque(enumerate(as_tasks(tasks)))
    if concurrency < 1:
        raise ConfigError(f"concurrency is {concurrency}: at least one task must run at a time")
    finished: asyncio.Queue[asyncio.Task[TaskOutcome]] = asyncio.Queue()
    running: set[asyncio.Task[TaskOutcome]] = set()

    def begin() -> None:
        if waiting:
            index, task = waiting.popleft()
            playing = asyncio.create_task(_play(choose, task, index))
            running.add(playing)
            playing.add_done_callback(end)

    def end(playing: asyncio.Task[TaskOutcome]) -> None:
        running.discard(playing)
        finished.put_nowait(playing)
        begin()

    try:
        left = len(waiting)
        for _ in range(min(concurrency, left)):
            begin()
        for _ in range(left):
            yield (await finished.get()).result()
    finally:
        waiting.clear()
        for playing in running:
            playing.cancel()
        if running:
            await asyncio.wait(running)


async def run_many(
    choose: Callable[[Task], Agent], tasks: Iterable[Task | str], concurrency: int = 8
) -> list[TaskOutcome]:
    """The outcomes of :func:`stream_many` in the order of the tasks."""
    async with aclosing(stream_many(choose, tasks, concurrency)) as outcomes:
        return sorted([outcome async for outcome in outcomes], key=lambda outcome: outcome.index)


def as_tasks(tasks: Iterable[Task | str]) -> list[Task]:
    """Plain questions made tasks. InputError for one question in place of many, and for what is no task."""
    if isinstance(tasks, str | Task):
        raise InputError(f"{tasks!r} is one task: pass a list of tasks, or call run()")
    listed = [Task(task) if isinstance(task, str) else task for task in tasks]
    for number, task in enumerate(listed, 1):
        if not isinstance(task, Task):
            raise InputError(f"task {number} is a {type(task).__name__}: pass a Task or a question as a string")
    return listed


async def _play(choose: Callable[[Task], Agent], task: Task, index: int) -> TaskOutcome:
    """Run one task; raises nothing but what ends the whole program."""
    began_s = time.monotonic()
    start: RunStart | None = None
    end: RunEnded | None = None
    folder: Path | None = None
    error: BaseException | None = None
    try:
        agent, form = choose(task), answer_form(task.answer)
        async with aclosing(agent.stream(replace(task, answer=form), deltas=False)) as stream:
            async for event in stream:
                if isinstance(event, RunStart):
                    start, folder = event, agent.runs / event.run_id
                elif isinstance(event, RunEnded):
                    end = event
    except Exception as problem:
        error = problem
    except asyncio.CancelledError as cut:
        current = asyncio.current_task()
        if current is not None and current.cancelling():
            raise  # from outside; otherwise the backend gave up on its own request, which ends this run only
        error = cut
    answer = None
    if end is not None and folder is not None and error is None:
        answer = Answer.from_end(end, folder, agent, form, task.deps)
    return TaskOutcome(
        task=task,
        index=index,
        status="failed" if end is None else end.status,
        answer=answer,
        reason=_reason(end, error),
        error=error,
        run=folder,
        model="" if start is None else start.model,
        usage=Usage() if end is None else end.usage,
        seconds=time.monotonic() - began_s,
    )


def _reason(end: RunEnded | None, error: BaseException | None) -> str:
    if isinstance(error, asyncio.CancelledError):
        return "the model's side cancelled its own request"
    if end is not None and (error is None or end.reason):
        return end.reason
    return f"{type(error).__name__}: {error}"
