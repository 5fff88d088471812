"""A session as a stream of events, and a stream played to its end."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncGenerator
from pathlib import Path

from keyeloop.agent.session import Session
from keyeloop.agent.watching import Watching
from keyeloop.agent.working import Working
from keyeloop.model_backend.base import Delta
from keyeloop.runtime.errors import UsageError
from keyeloop.runtime.events import Event, RunEnded, RunStart

StreamEvent = Event | Delta | Watching | Working
"""What :meth:`Agent.stream` yields: everything that the journal records, pieces of replies as they come, how far the
frames of the first message are decoded, and how far tools say that their calls are."""


async def played(session: Session, deltas: bool = True) -> AsyncGenerator[StreamEvent, None]:
    """The events of a session while it plays; closing it cancels the session and waits for its end.

    ``deltas``: pieces of replies too.
    """
    queue: asyncio.Queue[StreamEvent | None] = asyncio.Queue()
    here, owner = asyncio.get_running_loop(), threading.get_ident()

    def emit(event: StreamEvent) -> None:
        if threading.get_ident() == owner:
            queue.put_nowait(event)
        else:  # a backend that generates in a thread
            here.call_soon_threadsafe(queue.put_nowait, event)

    worker = asyncio.create_task(session.play(emit, deltas))
    worker.add_done_callback(lambda _: queue.put_nowait(None))
    try:
        while (event := await queue.get()) is not None:
            yield event
        await worker
    finally:
        worker.cancel()
        await asyncio.wait({worker})
        if not worker.cancelled():
            worker.exception()


async def play_to_end(
    stream: AsyncGenerator[StreamEvent, None], runs: Path, folder: Path | None = None
) -> tuple[RunEnded, Path]:
    """The end that a stream comes to, and the folder of its run: ``folder``, or the one below ``runs`` that it begins.

    When cancelled, it closes the stream, which ends the record as interrupted, and says on stderr how to go on.
    """
    end = None
    try:
        async for event in stream:
            if isinstance(event, RunStart):
                folder = runs / event.run_id
            elif isinstance(event, RunEnded):
                end = event
    except asyncio.CancelledError:
        await stream.aclose()
        if folder is not None:
            print(how_to_go_on(folder), file=sys.stderr)
        raise
    assert folder is not None and end is not None, "a stream that does not raise begins and ends"
    return end, folder


def how_to_go_on(run: os.PathLike[str]) -> str:
    """What to tell a person whose run was interrupted."""
    name = os.fspath(run)
    ways = f"go on with  keyeloop run --resume {name}  or read it with  keyeloop show {name}"
    return f"interrupted; everything up to here is kept: {ways}"


def require_no_loop(sync: str, instead: str) -> None:
    """Raise UsageError where an event loop runs already, as in a notebook: ``sync`` could not wait there."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise UsageError(f"{sync} cannot wait where an event loop runs (a notebook, async code): await {instead}")
