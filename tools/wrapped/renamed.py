"""A tool under another name."""

from __future__ import annotations

from dataclasses import replace

from keyeloop.runtime.content import ToolSpec
from keyeloop.runtime.errors import ToolDefinitionError
from keyeloop.tools.base import TOOL_NAME, Tool
from keyeloop.tools.wrapped.wrapped import WrappedTool


class Renamed(WrappedTool):
    """The model knows it as ``name``; rules within still see the name that they were made for."""

    def __init__(self, inner: Tool, name: str) -> None:
        super().__init__(inner)
        if not TOOL_NAME.fullmatch(name):
            raise ToolDefinitionError(f"{name!r} is no name for a tool: give one of letters, digits, _ and -")
        self._spec = replace(inner.spec, name=name)

    @property
    def spec(self) -> ToolSpec:
        """As the model is told."""
        return self._spec
