"""What is shared by tools that are an object with settings, of which one method is what the model calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keyeloop.runtime.content import Part, ToolSpec
from keyeloop.tools.base import ToolContext
from keyeloop.tools.decorate import FunctionTool


class MethodTool:
    """A Tool by one of its own methods: described, checked and called as ``@tool`` does with a function."""

    def __init__(self, made: FunctionTool[..., Any]) -> None:
        """``made`` is ``tool(name=..., ...)(self._method)``."""
        self._tool = made

    @property
    def spec(self) -> ToolSpec:
        """Name, description and JSON schema, as the model is told."""
        return self._tool.spec

    @property
    def timeout_s(self) -> float:
        """Seconds after which a call is abandoned."""
        return self._tool.timeout_s

    @property
    def in_order(self) -> bool:
        """Whether calls of one turn start one after another."""
        return self._tool.in_order

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> tuple[Part, ...]:
        """What the method returns, as content. Raises ToolError."""
        return await self._tool.call(arguments, context)

    async def close(self, context: ToolContext) -> None:
        """Free what the method keeps in the context; idempotent."""
        await self._tool.close(context)
