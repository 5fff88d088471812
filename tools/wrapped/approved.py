"""A tool whose calls somebody has to allow."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from weakref import WeakKeyDictionary

from keyeloop.runtime.content import ToolCall
from keyeloop.runtime.errors import ToolError
from keyeloop.tools.base import Tool, ToolContext
from keyeloop.tools.calling import in_thread
from keyeloop.tools.wrapped.rules import Rules
from keyeloop.tools.wrapped.wrapped import WrappedTool

Ask = Callable[[ToolCall], bool | str | Awaitable[bool | str]]
"""Asks a person: True allows the call, False denies it, a text denies it and is told to the model as the reason."""


class Asking:
    """Asks about one call at a time."""

    def __init__(self, ask: Ask | None) -> None:
        self._ask = ask
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()

    async def allowed(self, call: ToolCall) -> bool | str:
        """The answer; a function that is not async is asked in a thread. Without anybody to ask it is a reason."""
        ask = self._ask
        if ask is None:
            return "it has to be allowed by a person, and there is nobody to ask"
        async with self._turns.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            answer = await ask(call) if inspect.iscoroutinefunction(ask) else await in_thread(lambda: ask(call))
            if inspect.isawaitable(answer):
                answer = await answer
            return answer if isinstance(answer, str) else answer is True


class Approved(WrappedTool):
    """Calls are decided by rules, which nothing that a model writes or reads can change, or by asking."""

    def __init__(self, inner: Tool, rules: Rules, asking: Asking) -> None:
        super().__init__(inner)
        self._rules, self._asking = rules, asking

    async def approve(self, call: ToolCall, context: ToolContext) -> str:
        """Who allowed the call. Raises ToolError where it is denied."""
        within = await super().approve(call, context)
        decision, by = self._rules.decide(call)
        if decision == "deny":
            raise ToolError(f"{call.name} with these arguments is not allowed ({by}); do it another way")
        if decision == "ask":
            answer = await self._asking.allowed(call)
            if answer is not True:
                reason = f": {answer}" if isinstance(answer, str) and answer else ""
                raise ToolError(f"{call.name} was not allowed{reason}")
            by = f"asked, by {by}"
        return "; ".join(filter(None, (within, f"allowed: {by}")))
