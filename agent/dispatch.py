"""From a tool call to what the model reads: check, run in parallel with time-outs, shape errors."""

from __future__ import annotations

import asyncio
import math
import traceback
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from keyeloop.agent.argument_check import check_schemas, misfit
from keyeloop.agent.working import Working
from keyeloop.runtime.content import Part, Text, ToolCall, ToolResult, images_of
from keyeloop.runtime.errors import OperatorError, ToolCrashed, ToolError
from keyeloop.tools.base import Tool, ToolContext
from keyeloop.tools.decorate import OnCrash
from keyeloop.tools.results import check_parts
from keyeloop.tools.toolset import Toolset

CANCEL_GRACE_S = 1.0
"""How long an abandoned call may take to clean up before nobody waits for it any more."""
QUOTE_CHARS = 500
"""At most this much of the model's own text is quoted back."""


@dataclass(frozen=True)
class Outcome:
    """A finished call: what the model reads and the journal keeps, and how long it took."""

    result: ToolResult
    duration_s: float = 0.0
    crash: ToolCrashed | None = None
    """What ends the run: the tool raised what is no ToolError, and was not told to go on."""


class Dispatcher:
    """Runs the calls of one run on its tools."""

    def __init__(
        self,
        tools: Toolset,
        context: ToolContext,
        on_crash: OnCrash = "end",
        on_progress: Callable[[Working], None] | None = None,
    ) -> None:
        """``on_crash`` is for tools that do not say themselves; ``on_progress`` may be called in any thread."""
        self._tools = tools
        self._validators = check_schemas(tools)
        self._context = context
        self._on_crash, self._on_progress = on_crash, on_progress

    def problem(self, call: ToolCall) -> str | None:
        """What is wrong with a call before it is made: an unknown tool, arguments that do not fit its schema."""
        try:
            self._tools.find(call.name)
        except ToolError as error:
            return clip(str(error))
        wrong = misfit(self._validators[call.name], call.arguments)
        return None if wrong is None else f"{call.name}: {clip(wrong)}"

    async def run(self, calls: Sequence[ToolCall], seconds_left: float | None = None) -> AsyncGenerator[Outcome, None]:
        """Run calls that have no :meth:`problem` all at once; outcomes come in call order, each as soon as it can.

        Calls of tools whose ``in_order`` is true start one after another: True stands for all that name views, a string
        for a queue of its own (a tool that keeps state). Never raises for what a tool does.
        """
        tasks: list[asyncio.Task[Outcome]] = []
        last: dict[bool | str, asyncio.Task[Outcome]] = {}
        until_s = math.inf if seconds_left is None else self._context.clock.monotonic() + seconds_left
        for call in calls:
            queue: bool | str = getattr(self._tools.find(call.name), "in_order", False)
            task = asyncio.create_task(self._timed(call, until_s, last.get(queue)))
            tasks.append(task)
            if queue:
                last[queue] = task
        try:
            for task in tasks:
                yield await task
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _timed(self, call: ToolCall, until_s: float, before: asyncio.Task[Outcome] | None) -> Outcome:
        if before is not None:
            await asyncio.wait({before})
        tool, clock = self._tools.find(call.name), self._context.clock
        details: dict[str, Any] = {}
        approve = getattr(tool, "approve", None)
        if approve is not None:  # people take their time, and a call's own begins when it is allowed
            try:
                async with asyncio.timeout(None if until_s == math.inf else max(0.0, until_s - clock.monotonic())):
                    allowed = await approve(call, self._context)
                    details |= {"approval": allowed} if allowed else {}
            except TimeoutError:
                return Outcome(refused(call, f"{call.name} was not made: nobody allowed it in time"))
            except ToolError as error:
                denied = refused(call, str(error))
                return Outcome(replace(denied, details={"approval": str(error)}))
        slot = getattr(tool, "slot", nullcontext)
        async with slot():
            started_s = clock.monotonic()
            limit_s = max(0.0, min(tool.timeout_s, until_s - started_s))
            result, crash = await self._call(tool, call, limit_s)
        result = replace(result, details={**result.details, **details})
        return Outcome(result, clock.monotonic() - started_s, crash)

    async def _call(self, tool: Tool, call: ToolCall, limit_s: float) -> tuple[ToolResult, ToolCrashed | None]:
        work = asyncio.ensure_future(tool.call(call.arguments, self._lent(call)))
        try:
            await asyncio.wait({work}, timeout=limit_s)
            if not work.done():
                return refused(call, f"{call.name} was stopped after {limit_s:.3g} s; ask for less at once"), None
            if work.cancelled():  # by the tool itself: whoever cancels the run cancels this task too
                return refused(call, f"{call.name} broke off by itself; try it another way"), None
            parts = tuple(work.result())
            media = self._context.media
            check = partial(check_parts, parts, media, call.name)
            if all(media.made(image.media) for part in parts for image in images_of(part)):
                check()
            else:  # pictures are decoded
                await asyncio.to_thread(check)
            return ToolResult(call.id, call.name, parts), None
        except ToolError as error:
            return refused(call, str(error)), None
        except OperatorError as error:
            return refused(call, f"{call.name} could not run: {clip(str(error))}", traceback.format_exc()), None
        except Exception as error:
            what = f"{type(error).__name__}: {clip(str(error), 200)}"
            note = f"{call.name} broke down ({what}); try it another way"
            result = refused(call, note, traceback.format_exc())
            if (getattr(tool, "on_crash", None) or self._on_crash) == "continue":
                return result, None
            crash = ToolCrashed(
                f"tool {call.name!r} raised {what}; the record has its traceback (a ToolError is told to the model, "
                "on_crash='continue' tells any)"
            )
            crash.__cause__ = error
            return result, crash
        finally:
            if not work.done():
                await _abandon(work)

    def _lent(self, call: ToolCall) -> ToolContext:
        """The run's context for one call, which it tells how far it is."""
        if self._on_progress is None:
            return self._context
        on_progress = self._on_progress
        return replace(self._context, on_progress=lambda progress: on_progress(Working(call, progress)))


def refused(call: ToolCall, problem: str, trace: str | None = None) -> ToolResult:
    """A result that tells the model what went wrong; a traceback goes to the journal only."""
    parts: tuple[Part, ...] = (Text(f"Error: {problem}"),)
    return ToolResult(call.id, call.name, parts, error=True, details={"traceback": trace} if trace else {})


def clip(text: str, limit: int = QUOTE_CHARS) -> str:
    """Text short enough to quote."""
    return text if len(text) <= limit else text[:limit] + "..."


async def _abandon(work: asyncio.Future[Any]) -> None:
    work.cancel()
    await asyncio.wait({work}, timeout=CANCEL_GRACE_S)
    work.add_done_callback(lambda done: done.cancelled() or done.exception())
