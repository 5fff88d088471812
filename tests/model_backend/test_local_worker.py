"""One job at a time, and none that nobody waits for."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from keyeloop.model_backend.local.worker import Job, Worker
from keyeloop.runtime.errors import BackendError


def wait_until_stopped(job: Job[int]) -> None:
    while True:
        job.check()
        time.sleep(0.002)


async def test_items_arrive_in_order_and_before_the_result() -> None:
    worker, seen = Worker("test"), list[int]()

    def count(job: Job[int]) -> str:
        for number in range(100):
            job.emit(number)
        return threading.current_thread().name

    assert (await worker.run(count, seen.append)).startswith("test")
    assert seen == list(range(100))
    worker.close()


async def test_a_cancelled_job_has_ended_when_the_task_has() -> None:
    worker, ended = Worker("test"), threading.Event()

    def work(job: Job[int]) -> None:
        try:
            wait_until_stopped(job)
        finally:
            time.sleep(0.02)
            ended.set()

    task = asyncio.create_task(worker.run(work))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
    worker.close()


async def test_a_cancelled_job_that_waits_never_runs() -> None:
    worker, ran = Worker("test"), list[int]()
    first = asyncio.create_task(worker.run(wait_until_stopped))
    second = asyncio.create_task(worker.run(lambda job: ran.append(1)))
    await asyncio.sleep(0.02)
    second.cancel()
    first.cancel()
    results = await asyncio.gather(first, second, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results) and not ran
    worker.close()


async def test_closing_ends_what_runs_and_what_waits() -> None:
    worker = Worker("test")
    tasks = [asyncio.create_task(worker.run(wait_until_stopped)) for _ in range(2)]
    await asyncio.sleep(0.02)
    worker.close()
    worker.close()
    for task in tasks:
        with pytest.raises(BackendError, match="was closed while"):
            await task
    with pytest.raises(BackendError, match="test is closed: load it again"):
        await worker.run(wait_until_stopped)


async def test_a_problem_of_the_receiver_is_raised_even_at_the_end() -> None:
    def refuse(item: int) -> None:
        raise ValueError(f"not {item}")

    worker = Worker("test")
    with pytest.raises(ValueError, match="not 3"):
        await worker.run(lambda job: job.emit(3), refuse)
    with pytest.raises(ZeroDivisionError):
        await worker.run(lambda job: 1 // 0)
    worker.close()


def test_any_event_loop_may_ask() -> None:
    worker = Worker("test")
    assert [asyncio.run(worker.run(lambda job: 5)) for _ in range(2)] == [5, 5]
    worker.close()
