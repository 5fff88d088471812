"""One thread that does one thing at a time for asyncio, and stops what is cancelled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from keyeloop.runtime.errors import BackendError

Item = TypeVar("Item")
Result = TypeVar("Result")


class Stopped(Exception):
    """Raised by :meth:`Job.check` in the worker thread once the waiting side has given up."""


class Job(Generic[Item]):
    """What a function running in the worker holds: a way to hand out items, and a way to hear that it should stop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, receive: Callable[[Item], None] | None) -> None:
        self._loop, self._receive = loop, receive
        self._stop = threading.Event()
        self.problem: Exception | None = None
        """What the receiver raised; it ends the job."""

    def check(self) -> None:
        """Raise Stopped when the job is no longer wanted. Cheap: call it often."""
        if self._stop.is_set():
            raise Stopped

    def emit(self, item: Item) -> None:
        """Hand an item to the receiver, in order, in the event loop's thread."""
        if self._receive is not None:
            self._loop.call_soon_threadsafe(self._deliver, item)

    def stop(self) -> None:
        """Ask the job to end at its next check; nothing is delivered any more."""
        self._stop.set()

    def _deliver(self, item: Item) -> None:
        if self._receive is None or self._stop.is_set():
            return
        try:
            self._receive(item)
        except Exception as problem:
            self.problem = problem
            self.stop()


class Worker:
    """Runs jobs one after another in a thread of its own, whatever event loop asks for them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._executor = ThreadPoolExecutor(1, name)
        self._jobs: set[Job[Any]] = set()
        self._closed = False

    async def run(
        self, function: Callable[[Job[Item]], Result], receive: Callable[[Item], None] | None = None
    ) -> Result:
        """Run ``function`` and return its result; every item it emitted has been received by then.

        When the awaiting task is cancelled, the job is stopped, and the cancellation goes on only after it has ended.
        Raises BackendError after :meth:`close`, and whatever ``function`` or ``receive`` raise.
        """
        if self._closed:
            raise BackendError(f"{self._name} is closed: load it again")
        job: Job[Item] = Job(asyncio.get_running_loop(), receive)
        self._jobs.add(job)
        running = self._executor.submit(_guarded, function, job)
        future = asyncio.wrap_future(running)
        try:
            result = await asyncio.shield(future)
        except asyncio.CancelledError:
            job.stop()
            if not running.cancel():
                await asyncio.wait([future])
            if future.done() and not future.cancelled():
                future.exception()
            raise
        except Stopped:
            raise job.problem or BackendError(f"{self._name} was closed while it was working") from None
        finally:
            self._jobs.discard(job)
        if job.problem is not None:
            raise job.problem
        return result

    def close(self) -> None:
        """Stop the job in progress and those that wait, and take no more; idempotent."""
        self._closed = True
        for job in list(self._jobs):
            job.stop()
        self._executor.shutdown(wait=True)


def _guarded(function: Callable[[Job[Item]], Result], job: Job[Item]) -> Result:
    job.check()
    return function(job)
