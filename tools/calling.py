"""Calling a Python function of any kind: plain ones in a thread of their own, generators while they report."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any

from keyeloop.tools.base import Progress

Report = Callable[[Progress], None]


async def call_function(function: Callable[..., Any], bound: inspect.BoundArguments, report: Report) -> Any:
    """What the function gives; of a generator everything that it yields, and returns, but :class:`Progress`.

    A text that is yielded is reported too. Raises what the function raises; a RuntimeError where it calls ``sys.exit``,
    which would end the program that runs the agent.
    """
    try:
        if inspect.isasyncgenfunction(_called(function)):
            return await _gather(function(*bound.args, **bound.kwargs), report)
        if inspect.iscoroutinefunction(_called(function)):
            return await function(*bound.args, **bound.kwargs)
        stop = threading.Event()
        try:
            if inspect.isgeneratorfunction(_called(function)):
                return await in_thread(lambda: _collect(function(*bound.args, **bound.kwargs), report, stop))
            value = await in_thread(lambda: function(*bound.args, **bound.kwargs))
        finally:
            stop.set()
        return await value if inspect.isawaitable(value) else value
    except SystemExit as leave:
        raise RuntimeError(f"it called sys.exit({leave.code!r})") from leave


async def in_thread(work: Callable[[], Any]) -> Any:
    """Run ``work`` in a daemon thread: one that never returns holds up neither the loop nor the end of the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def settle(value: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(RuntimeError(repr(error)) if isinstance(error, StopIteration) else error)

    def run() -> None:
        value, error = None, None
        try:
            value = context.run(work)
        except BaseException as raised:  # handed over whole to whoever awaits
            error = raised
        try:
            loop.call_soon_threadsafe(settle, value, error)
        except RuntimeError:
            return  # the loop has closed: nobody waits any more

    threading.Thread(target=run, name="tool call", daemon=True).start()
    return await future


def _called(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function itself, or an object's ``__call__``."""
    while isinstance(function, functools.partial):
        function = function.func
    return function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004


def _collect(pieces: Iterator[Any], report: Report, stop: threading.Event) -> Any:
    """Run a generator to its end, or to its next piece once nobody waits any more."""
    kept: list[Any] = []
    try:
        while True:
            try:
                piece = next(pieces)
            except StopIteration as end:
                if end.value is not None:
                    kept.append(end.value)
                return _one_or_all(kept)
            if stop.is_set():
                return None
            _take(piece, kept, report)
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            close()


async def _gather(pieces: AsyncIterator[Any], report: Report) -> Any:
    kept: list[Any] = []
    async with aclosing(pieces) as open_pieces:  # type: ignore[type-var]
        async for piece in open_pieces:
            _take(piece, kept, report)
    return _one_or_all(kept)


def _take(piece: Any, kept: list[Any], report: Report) -> None:
    if isinstance(piece, Progress):
        report(piece)
        return
    if isinstance(piece, str):
        report(Progress(piece))
    kept.append(piece)


class Pieces(list[Any]):
    """What a generator yielded: each piece a part of its own, whatever it is."""


def _one_or_all(kept: list[Any]) -> Any:
    if not kept:
        return None
    return kept[0] if len(kept) == 1 else Pieces(kept)
