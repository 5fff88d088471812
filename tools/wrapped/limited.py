"""A tool that a model may not use as much as it likes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from keyeloop.runtime.content import Part
from keyeloop.runtime.errors import ToolError
from keyeloop.tools.base import Tool, ToolContext
from keyeloop.tools.wrapped.wrapped import WrappedTool


class Allowance:
    """How many calls one question may make of some tools together."""

    def __init__(self, calls: int) -> None:
        self._calls = calls
        self._key = f"allowance.{id(self)}"

    def take(self, name: str, context: ToolContext) -> None:
        """Use one up. Raises ToolError where none is left."""
        used = context.state.get(self._key, 0)
        if used >= self._calls:
            times = "once" if self._calls == 1 else f"{self._calls} times"
            raise ToolError(f"{name} may be called {times}, and was; answer with what you have")
        context.state[self._key] = used + 1


class Limited(WrappedTool):
    """Fewer calls, less time or fewer picture tokens than the tool itself allows."""

    def __init__(
        self,
        inner: Tool,
        allowance: Allowance | None = None,
        *,
        timeout_s: float | None = None,
        visual_tokens: int | None = None,
    ) -> None:
        super().__init__(inner)
        self._allowance, self._timeout_s, self._visual_tokens = allowance, timeout_s, visual_tokens

    @property
    def timeout_s(self) -> float:
        """The shorter of both."""
        return self._inner.timeout_s if self._timeout_s is None else min(self._timeout_s, self._inner.timeout_s)

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> tuple[Part, ...]:
        """Run the tool within its limits. Raises ToolError where it has been called often enough."""
        if self._allowance is not None:
            self._allowance.take(self.spec.name, context)
        if self._visual_tokens is not None:
            most = min(self._visual_tokens, context.visual_budget_tokens)
            context = replace(context, visual_budget_tokens=most)
        return await self._inner.call(arguments, context)
