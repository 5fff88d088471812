"""The tools of a question that is played again: recorded results first, then the tools themselves, in rebuilt state."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from keyeloop.agent.dispatch import Dispatcher, Outcome
from keyeloop.agent.replaying.tape import Tape
from keyeloop.agent.working import Working
from keyeloop.runtime.content import Image, Part, ToolCall, ToolResult, images_of
from keyeloop.runtime.events import RebuiltCall, ToolReturned
from keyeloop.runtime.views import ViewBook
from keyeloop.runtime.wire import parts_from_wire
from keyeloop.tools.base import ToolContext
from keyeloop.tools.decorate import OnCrash
from keyeloop.tools.toolset import Toolset


@dataclass(frozen=True)
class _Made:
    """A recorded call that later ones stand on, with what it was made in."""

    call: ToolCall
    context: ToolContext
    returned: ToolReturned


class TapedDispatcher(Dispatcher):
    """Gives recorded results as long as there are any, and makes no recorded call.

    But for :meth:`rebuild`: calls of tools that keep state between their calls (their ``rebuilds`` is true) are made
    again there, once, so that the next one finds it.
    """

    def __init__(
        self,
        tape: Tape,
        settle: Callable[[], Awaitable[None]],
        tools: Toolset,
        context: ToolContext,
        on_crash: OnCrash = "end",
        on_progress: Callable[[Working], None] | None = None,
    ) -> None:
        """Take results from ``tape``; ``settle`` is awaited before a tool is really called."""
        super().__init__(tools, context, on_crash, on_progress)
        self._tape, self._settle = tape, settle
        self._made: list[_Made] = []

    async def run(self, calls: Sequence[ToolCall], seconds_left: float | None = None) -> AsyncGenerator[Outcome, None]:
        """As :meth:`Dispatcher.run`: recorded outcomes, then those of the calls that have none."""
        recorded = [self._tape.result(call.id) for call in calls] if self._tape.left else []
        known = [returned for returned in recorded if returned is not None]
        if self._tape.left:
            self._context.incidents += self._tape.incidents()
        for call, returned in zip(calls, known, strict=False):
            if getattr(self._tools.find(call.name), "rebuilds", False):
                self._made.append(_Made(call, _as_it_was(self._context), returned))
            for view in returned.views:
                self._context.views.restore(view)
            parts = parts_from_wire(returned.parts)
            result = ToolResult(returned.call_id, returned.name, parts, returned.error, returned.details)
            yield Outcome(result, returned.duration_s)
        rest = calls[len(known) :]
        if not rest:
            return
        await self._settle()
        async with aclosing(super().run(rest, seconds_left)) as outcomes:
            async for outcome in outcomes:
                yield outcome

    async def rebuild(self) -> tuple[RebuiltCall, ...]:
        """Make the recorded calls of tools that keep state again, in order, and compare what they give."""
        made, self._made = self._made, []
        return tuple([await self._again(one) for one in made])

    async def _again(self, made: _Made) -> RebuiltCall:
        tool, started_s = self._tools.find(made.call.name), time.monotonic()
        again = Dispatcher(self._tools, made.context, "continue")
        result, _ = await again._call(tool, made.call, tool.timeout_s)
        problem = difference(parts_from_wire(made.returned.parts), result.parts)
        took_s = time.monotonic() - started_s
        return RebuiltCall(
            call_id=made.call.id, name=made.call.name, same=not problem, difference=problem, duration_s=took_s
        )


def difference(recorded: Sequence[Part], now: Sequence[Part]) -> str:
    """In what a result is not the recorded one, for people; empty where it is."""
    was, here = _plain(recorded), _plain(now)
    if was == here:
        return ""
    for old, new in zip(was, here, strict=False):
        if old != new:
            return f"recorded {_short(old)}, now {_short(new)}"
    return f"{len(was)} parts are recorded, now there are {len(here)}"


def _plain(parts: Sequence[Part]) -> list[str]:
    plain: list[str] = []
    for part in parts:
        images = images_of(part)
        if images:
            plain += [f"picture {image.media.sha256[:12]} {_size(image)}" for image in images]
        else:
            plain.append(getattr(part, "text", ""))
    return plain


def _size(image: Image) -> str:
    return f"{image.media.width}x{image.media.height}"


def _short(text: str, limit: int = 200) -> str:
    return repr(text if len(text) <= limit else text[:limit] + "...")


def _as_it_was(context: ToolContext) -> ToolContext:
    """What a tool is handed for a call that is made again: the views and pictures of then, and the run's own state."""
    views = ViewBook()
    for view in context.views:
        views.restore(view)
    return replace(context, views=views, shown=dict(context.shown), incidents=[])
