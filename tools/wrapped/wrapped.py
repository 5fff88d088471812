"""A tool around another, which does all the work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from keyeloop.runtime.content import Part, ToolCall, ToolSpec
from keyeloop.tools.base import Tool, ToolContext


class WrappedTool:
    """Everything is left to ``inner``; subclasses change what they are for."""

    def __init__(self, inner: Tool) -> None:
        self._inner = inner

    @property
    def spec(self) -> ToolSpec:
        """As the model is told."""
        return self._inner.spec

    @property
    def timeout_s(self) -> float:
        """Seconds after which a call is abandoned."""
        return self._inner.timeout_s

    async def approve(self, call: ToolCall, context: ToolContext) -> str:
        """Who allowed the call, under the names that the tools within know; empty where nobody had to."""
        inner = getattr(self._inner, "approve", None)
        if inner is None:
            return ""
        allowed: str = await inner(replace(call, name=self._inner.spec.name), context)
        return allowed

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> tuple[Part, ...]:
        """Run the tool. Raises ToolError as it does."""
        return await self._inner.call(arguments, context)

    async def close(self, context: ToolContext) -> None:
        """Free what the tool keeps."""
        await self._inner.close(context)

    def __getattr__(self, name: str) -> Any:
        """What else a tool may have: its order, its strict schema, its places."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._inner, name)

    def __repr__(self) -> str:
        return f"<tool {self.spec.name}>"
