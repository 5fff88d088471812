"""What a server is asked once, however many tasks want to know it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

Answer = TypeVar("Answer")


class AskedOnce(Generic[Answer]):
    """Asks in a thread with an event loop of its own, so that a running loop does not matter.

    Who comes while it is being asked waits for the same answer, or the same failure: many tasks end as soon as one
    where no server is. After a failure the next one asks anew.
    """

    def __init__(self, ask: Callable[[], Coroutine[Any, Any, Answer]]) -> None:
        self._ask = ask
        self._asking = threading.Lock()
        self._pending: Future[Answer] | None = None
        self.known: Answer | None = None
        """None until it has been answered."""

    def answer(self) -> Answer:
        """The answer; blocks while it is being asked, and raises what asking raised."""
        with self._asking:
            if self.known is not None:
                return self.known
            if self._pending is None or self._pending.done():
                thread = ThreadPoolExecutor(1, thread_name_prefix="keyeloop-probe")
                self._pending = thread.submit(self._meet)
                thread.shutdown(wait=False)
            pending = self._pending
        return pending.result()

    async def wait(self) -> Answer:
        """The answer, without blocking the event loop."""
        return self.known if self.known is not None else await asyncio.to_thread(self.answer)

    def _meet(self) -> Answer:
        self.known = asyncio.run(self._ask())
        return self.known
