"""From a tool call to what the model reads: check, run in parallel with time-outs, shape errors."""

from __future__ import annotations

import asyncio
import math
import traceback
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from keyeloop.runtime.content import Part, Text, ToolCall, ToolResult, images_of
from keyeloop.runtime.errors import OperatorError, ToolDefinitionError, ToolError
from keyeloop.tools.base import Tool, ToolContext
from keyeloop.tools.results import check_parts
from keyeloop.tools.toolset import Toolset

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

CANCEL_GRACE_S = 1.0
"""How long an abandoned call may take to clean up before nobody waits for it any more."""
QUOTE_CHARS = 500
"""At most this much of the model's own text is quoted back."""


@dataclass(frozen=True)
class Outcome:
    """A finished call: what the model reads and the journal keeps, and how long it took."""

    result: ToolResult
    duration_s: float = 0.0


class Dispatcher:
    """Runs the calls of one run on its tools."""

    def __init__(self, tools: Toolset, context: ToolContext) -> None:
        self._tools = tools
        self._validators = check_schemas(tools)
        self._context = context

    def problem(self, call: ToolCall) -> str | None:
        """What is wrong with a call before it is made: an unknown tool, arguments that do not fit its schema."""
        from jsonschema.exceptions import best_match

        try:
            self._tools.find(call.name)
        except ToolError as error:
            return clip(str(error))
        wrong = best_match(self._validators[call.name].iter_errors(dict(call.arguments)))
        if wrong is None:
            return None
        where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in wrong.path).lstrip(".")
        return f"{call.name}: {where + ': ' if where else ''}{clip(wrong.message)}"

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
        started_s = clock.monotonic()
        limit_s = max(0.0, min(tool.timeout_s, until_s - started_s))
        result = await self._call(tool, call, limit_s)
        return Outcome(result, clock.monotonic() - started_s)

    async def _call(self, tool: Tool, call: ToolCall, limit_s: float) -> ToolResult:
        work = asyncio.ensure_future(tool.call(call.arguments, self._context))
        try:
            await asyncio.wait({work}, timeout=limit_s)
            if not work.done():
                return refused(call, f"{call.name} was stopped after {limit_s:.3g} s; ask for less at once")
            if work.cancelled():  # by the tool itself: whoever cancels the run cancels this task too
                return refused(call, f"{call.name} broke off by itself; try it another way")
            parts = tuple(work.result())
            media = self._context.media
            check = partial(check_parts, parts, media, call.name)
            if all(media.made(image.media) for part in parts for image in images_of(part)):
                check()
            else:  # pictures are decoded
                await asyncio.to_thread(check)
            return ToolResult(call.id, call.name, parts)
        except ToolError as error:
            return refused(call, str(error))
        except OperatorError as error:
            return refused(call, f"{call.name} could not run: {clip(str(error))}", traceback.format_exc())
        except Exception as error:
            note = f"{call.name} broke down ({type(error).__name__}: {clip(str(error), 200)}); try it another way"
            return refused(call, note, traceback.format_exc())
        finally:
            if not work.done():
                await _abandon(work)


def check_schemas(tools: Iterable[Tool]) -> dict[str, Validator]:
    """A validator of arguments for each tool; ToolDefinitionError for parameters that are no JSON schema."""
    return {tool.spec.name: _validator(tool.spec.name, tool.spec.parameters) for tool in tools}


def refused(call: ToolCall, problem: str, trace: str | None = None) -> ToolResult:
    """A result that tells the model what went wrong; a traceback goes to the journal only."""
    parts: tuple[Part, ...] = (Text(f"Error: {problem}"),)
    return ToolResult(call.id, call.name, parts, error=True, details={"traceback": trace} if trace else {})


def clip(text: str, limit: int = QUOTE_CHARS) -> str:
    """Text short enough to quote."""
    return text if len(text) <= limit else text[:limit] + "..."


def _validator(name: str, schema: Mapping[str, Any]) -> Validator:
    from jsonschema.exceptions import SchemaError  # a fifth of all imports, and a plan checks no call
    from jsonschema.validators import validator_for

    kind = validator_for(schema)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise ToolDefinitionError(f"the parameters of tool {name!r} are no JSON schema: {error.message}") from None
    return kind(dict(schema))


async def _abandon(work: asyncio.Future[Any]) -> None:
    work.cancel()
    await asyncio.wait({work}, timeout=CANCEL_GRACE_S)
    work.add_done_callback(lambda done: done.cancelled() or done.exception())
