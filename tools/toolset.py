"""Tools in the order in which a model is told of them, each under a name of its own."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator

from keyeloop.runtime.content import ToolSpec
from keyeloop.runtime.errors import ToolDefinitionError, ToolError
from keyeloop.tools.base import Tool


class Toolset:
    """An ordered set of tools. ToolDefinitionError for a name given twice, a plain function or a class."""

    def __init__(self, tools: Iterable[Tool] = ()) -> None:
        self._tools: dict[str, Tool] = {}
        if not isinstance(tools, Iterable):
            raise ToolDefinitionError(f"tools is {type(tools).__name__}, which is no list: write tools=[...]")
        for tool in tools:
            name = getattr(tool, "__name__", repr(tool))
            if isinstance(tool, type):
                raise ToolDefinitionError(f"{name} is a class, not a tool: write {name}()")
            if not hasattr(tool, "spec"):
                raise ToolDefinitionError(f"{name} is not a tool: put @tool above its definition")
            require_bound = getattr(tool, "require_bound", None)
            if require_bound is not None:
                require_bound()
            if tool.spec.name in self._tools:
                raise ToolDefinitionError(f"two tools are called {tool.spec.name!r}: give one of them @tool(name=...)")
            self._tools[tool.spec.name] = tool

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """What a model is told of all of them, in order."""
        return tuple(tool.spec for tool in self)

    def find(self, name: str) -> Tool:
        """The tool called ``name``; ToolError names the nearest one."""
        try:
            return self._tools[name]
        except KeyError:
            near = difflib.get_close_matches(name, self._tools, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ToolError(f"there is no tool {name!r}; {hint}tools: {', '.join(self._tools) or 'none'}") from None

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._tools.values())

    def __len__(self) -> int:
        return len(self._tools)

    def __contains__(self, name: object) -> bool:
        return name in self._tools

    def __add__(self, other: Iterable[Tool]) -> Toolset:
        return Toolset([*self, *other])
