"""Tools in the order in which a model is told of them, each under a name of its own."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase

from keyeloop.runtime.content import ToolSpec
from keyeloop.runtime.errors import ToolDefinitionError, ToolError
from keyeloop.tools.base import Tool
from keyeloop.tools.wrapped.approved import Approved, Ask, Asking
from keyeloop.tools.wrapped.limited import Allowance, Limited
from keyeloop.tools.wrapped.renamed import Renamed
from keyeloop.tools.wrapped.rules import Rules


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

    def filtered(self, *keep: str | Callable[[ToolSpec], bool]) -> Toolset:
        """Those whose name fits one of some patterns (``clip_*``), or of which a function of their spec says so.

        Raises ToolDefinitionError for a pattern that fits none.
        """
        for pattern in keep:
            if isinstance(pattern, str) and not any(fnmatchcase(name, pattern) for name in self._tools):
                raise ToolDefinitionError(f"no tool is called {pattern!r}; tools: {', '.join(self._tools) or 'none'}")
        return Toolset(tool for tool in self if any(_fits(one, tool.spec) for one in keep))

    def prefixed(self, prefix: str) -> Toolset:
        """All of them with names that begin with ``prefix``."""
        return Toolset(Renamed(tool, prefix + tool.spec.name) for tool in self)

    def renamed(self, names: Mapping[str, str]) -> Toolset:
        """Some of them under other names: ``{"old": "new"}``. ToolDefinitionError for a name that is not there."""
        self._require(names)
        return Toolset(Renamed(tool, names[tool.spec.name]) if tool.spec.name in names else tool for tool in self)

    def limited(
        self,
        calls: int | Mapping[str, int] | None = None,
        *,
        timeout_s: float | None = None,
        visual_tokens: int | None = None,
    ) -> Toolset:
        """All of them with less than they would take themselves.

        ``calls`` is how many one question may make of all of them together, or of each by its name; ``timeout_s`` and
        ``visual_tokens`` are for each call. A call too many is told to the model. Raises ToolDefinitionError for a name
        that is not there.
        """
        each = calls if isinstance(calls, Mapping) else {}
        self._require(each)
        shared = Allowance(calls) if isinstance(calls, int) else None
        own = {name: Allowance(number) for name, number in each.items()}
        return Toolset(
            Limited(tool, own.get(tool.spec.name, shared), timeout_s=timeout_s, visual_tokens=visual_tokens)
            for tool in self
        )

    def approved(self, rules: Mapping[str, str] | Iterable[tuple[str, str]], ask: Ask | None = None) -> Toolset:
        """All of them, each call decided by the first rule that fits it: ``allow``, ``ask`` or ``deny``.

        A rule is a pattern of names, with patterns of arguments in brackets: ``{"open_page(url=https://a.org/*)":
        "allow", "delete_*": "deny", "*": "ask"}``. What no rule fits is asked about. ``ask`` is given the call and
        returns whether it is allowed, or why not; it may be async. With nobody to ask the call is denied. The time that
        an answer takes is not the call's. Raises ConfigError for a rule that cannot be read.
        """
        read, asking = Rules(rules), Asking(ask)
        return Toolset(Approved(tool, read, asking) for tool in self)

    def _require(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self._tools:
                raise ToolDefinitionError(f"no tool is called {name!r}; tools: {', '.join(self._tools) or 'none'}")

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._tools.values())

    def __len__(self) -> int:
        return len(self._tools)

    def __contains__(self, name: object) -> bool:
        return name in self._tools

    def __add__(self, other: Iterable[Tool]) -> Toolset:
        return Toolset([*self, *other])


def _fits(keep: str | Callable[[ToolSpec], bool], spec: ToolSpec) -> bool:
    return fnmatchcase(spec.name, keep) if isinstance(keep, str) else keep(spec)
