"""Many tasks: every one has its own end, whatever becomes of the others, and none runs on after a cancellation."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from keyeloop.agent.agent import Agent
from keyeloop.agent.batch.many import TaskOutcome
from keyeloop.agent.task import Task
from keyeloop.model_backend.base import Request
from keyeloop.model_backend.local.worker import Worker
from keyeloop.model_backend.scripted import ScriptedBackend, Spoken, call
from keyeloop.runtime.budget import Limits
from keyeloop.runtime.errors import BackendError, ConfigError, InputError
from keyeloop.runtime.trajectory import Trajectory
from keyeloop.tools.base import Tool
from tests.agent.memory_folder import memory_folder
from tests.agent.small_tools import add, wait_for

TOOLS: list[Tool] = [add, wait_for]


def question_of(request: Request) -> str:
    """What the run was asked: the first user turn begins or ends with it."""
    return request.messages[1].text


def number_of(request: Request) -> int:
    """Questions of these tests end with a number."""
    return int(question_of(request).split("task ")[1].split()[0])


class Faulty:
    """A model that answers, dawdles, breaks in several ways or gives up, by the number of the task."""

    def __init__(self) -> None:
        self.open = self.most_open = 0
        self.asked: Counter[int] = Counter()

    async def __call__(self, request: Request) -> Spoken:
        number = number_of(request)
        self.asked[number] += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await asyncio.sleep(0.001)
            return await self._answer(number, request)
        finally:
            self.open -= 1

    async def _answer(self, number: int, request: Request) -> Spoken:
        match number % 10:
            case 1:
                raise BackendError("the server refused (connection refused)")
            case 2:
                raise ZeroDivisionError("a bug in the backend")
            case 3:
                raise asyncio.CancelledError  # cut from within
            case 4:
                await asyncio.sleep(0.05)
                return f"slow {number}"
            case 5:
                return "never enough" if not request.allow_calls else call("add", a=number, b=self.asked[number])
            case 6 if self.asked[number] == 1:
                return call("add", a=number, b=1)
        return f"answer {number}"


EXPECTED = {1: "failed", 2: "failed", 3: "interrupted", 5: "budget", 7: "failed"}
"""Status by the last digit of the task; the others are answered."""


@pytest.fixture
def memory() -> Iterator[Path]:
    with memory_folder() as folder:
        yield folder


async def test_200_tasks_with_faults_each_end_with_an_answer_or_a_reason(memory: Path) -> None:
    model = Faulty()
    agent = Agent(ScriptedBackend(model), TOOLS, limits=Limits(turns=3), runs=memory)
    tasks = [
        Task(f"task {number}", video=memory / "absent.mp4" if number % 10 == 7 else None, id=f"t{number}")
        for number in range(200)
    ]
    outcomes = await agent.run_many(tasks, concurrency=16)
    assert [outcome.task for outcome in outcomes] == tasks and [outcome.index for outcome in outcomes] == [*range(200)]
    for number, outcome in enumerate(outcomes):
        assert outcome.status == EXPECTED.get(number % 10, "answered"), outcome
        assert (outcome.answer is None) == (outcome.error is not None) == (outcome.status in ("failed", "interrupted"))
        assert (outcome.reason == "") == (outcome.status == "answered")
        assert outcome.seconds > 0
    assert outcomes[1].reason == "BackendError: the server refused (connection refused)"
    assert isinstance(outcomes[1].error, BackendError)
    assert outcomes[2].reason == "ZeroDivisionError: a bug in the backend"
    assert outcomes[3].reason == "the model's side cancelled its own request"
    assert str(outcomes[4].answer) == "slow 4" and str(outcomes[6].answer) == "answer 6"
    assert outcomes[5].answer is not None and outcomes[5].answer.text == "never enough"
    assert outcomes[7].run is None and "absent.mp4" in outcomes[7].reason and isinstance(outcomes[7].error, InputError)
    assert 8 < model.most_open <= 16 and model.open == 0
    runs = [outcome.run for outcome in outcomes if outcome.run is not None]
    assert len(set(runs)) == len(runs) == 180 == len(list(memory.glob("[!.]*")))
    assert all(Trajectory.read(run).end is not None for run in runs[::9]), "every record has an end"
    assert outcomes[5].usage.input_tokens > outcomes[0].usage.input_tokens > 0
    assert outcomes[5].model == "scripted"


async def test_outcomes_stream_as_they_finish(tmp_path: Path) -> None:
    async def later(request: Request) -> Spoken:
        await asyncio.sleep(0.15 - 0.05 * number_of(request))
        return "x"

    agent = Agent(ScriptedBackend(later), [], runs=tmp_path)
    tasks = [f"task {number}" for number in range(3)]
    streamed = [outcome.index async for outcome in agent.stream_many(tasks, concurrency=3)]
    assert streamed == [2, 1, 0]
    assert [outcome.index for outcome in await agent.run_many(iter(tasks), concurrency=3)] == [0, 1, 2]


async def test_an_outcome_is_one_json_object(tmp_path: Path) -> None:
    agent = Agent(ScriptedBackend(["42 [f9]"]), [], runs=tmp_path)
    (outcome,) = await agent.run_many([Task("task 1", id="q-1")])
    told = outcome.to_json()
    assert list(told) == "id status answer text reason citations run model usage seconds".split()
    assert (told["id"], told["status"], told["answer"], told["text"]) == ("q-1", "answered", "42", "42 [f9]")
    assert told["citations"][0]["seen"] is False and told["run"] == str(outcome.run)
    (failed,) = await agent.run_many([Task("task 1", id="q-2")])
    assert failed.to_json()["answer"] == "" and failed.to_json()["status"] == "failed"


async def test_what_are_no_tasks_is_said_before_anything_runs(tmp_path: Path) -> None:
    agent = Agent(ScriptedBackend([]), [], runs=tmp_path / "runs")
    assert await agent.run_many([]) == []
    with pytest.raises(InputError, match=r"'why\?' is one task: pass a list"):
        await agent.run_many("why?")
    with pytest.raises(InputError, match="task 2 is a int"):
        await agent.run_many(["why?", 3])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="concurrency is 0"):
        await agent.run_many(["why?"], concurrency=0)
    assert not (tmp_path / "runs").exists()


async def test_a_model_that_does_one_thing_at_a_time_makes_the_others_wait(tmp_path: Path) -> None:
    """The local engine's own worker stands behind this model."""
    worker, order = Worker("slow"), list[str]()

    def think(number: int) -> str:
        order.extend((f"begin {number}", f"end {number}"))
        return f"answer {number}"

    async def answer(request: Request) -> Spoken:
        number = number_of(request)
        return await worker.run(lambda job: think(number))

    agent = Agent(ScriptedBackend(answer), [], runs=tmp_path)
    outcomes = await agent.run_many([f"task {number}" for number in range(12)], concurrency=6)
    worker.close()
    assert [str(outcome.answer) for outcome in outcomes] == [f"answer {number}" for number in range(12)]
    assert all(order[index + 1] == order[index].replace("begin", "end") for index in range(0, 24, 2))


async def hang(request: Request) -> Spoken:
    """Answers task 0 at once, calls a tool that hangs for task 1, and hangs itself for the others."""
    match number_of(request):
        case 0:
            return "quick"
        case 1:
            return call("wait_for", seconds=600)
    await asyncio.sleep(600)
    return "never"


async def until_open(runs: Path, count: int) -> None:
    """Wait until so many runs have asked their model, or more."""
    while sum(path.read_text().count('"request"') for path in runs.glob("*/journal.jsonl")) < count:
        await asyncio.sleep(0.005)


async def test_cancelling_ends_every_open_run_as_interrupted(tmp_path: Path) -> None:
    agent = Agent(ScriptedBackend(hang), TOOLS, runs=tmp_path)
    many = asyncio.create_task(agent.run_many([f"task {number}" for number in range(20)], concurrency=4))
    await until_open(tmp_path, 5)
    many.cancel()
    with pytest.raises(asyncio.CancelledError):
        await many
    assert asyncio.all_tasks() == {asyncio.current_task()}, "nothing runs on"
    ends = Counter(Trajectory.read(run).status for run in tmp_path.glob("[!.]*"))
    assert ends == {"answered": 1, "interrupted": 4}, "task 5 and what follows never began"


async def test_closing_the_stream_ends_the_rest(tmp_path: Path) -> None:
    agent = Agent(ScriptedBackend(hang), TOOLS, runs=tmp_path)
    seen: list[TaskOutcome] = []
    async with aclosing(agent.stream_many([f"task {number}" for number in range(9)], concurrency=3)) as outcomes:
        async for outcome in outcomes:
            seen.append(outcome)
            await until_open(tmp_path, 4)
            break
    assert [outcome.index for outcome in seen] == [0]
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert Counter(Trajectory.read(run).status for run in tmp_path.glob("[!.]*")) == {"answered": 1, "interrupted": 3}
