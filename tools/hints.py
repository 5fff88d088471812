"""A function's type hints as types, also where they name what is local to the place of its definition."""

from __future__ import annotations

import functools
import inspect
import sys
import typing
from collections.abc import Callable
from types import FrameType
from typing import Any

from keyeloop.runtime.errors import ToolDefinitionError

_HERE = "keyeloop.tools."


def resolve_hints(function: Callable[..., Any], tool: str) -> dict[str, Any]:
    """Hints by the name of their parameter, ``Annotated`` kept. Raises ToolDefinitionError for an unknown name."""
    while isinstance(function, functools.partial):
        function = function.func
    target = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
    try:
        return typing.get_type_hints(target, include_extras=True)
    except NameError:
        pass
    try:
        return typing.get_type_hints(target, localns=_locals(target), include_extras=True)
    except NameError as error:
        raise ToolDefinitionError(
            f"a type hint of tool {tool!r} cannot be resolved ({error}): define or import it at the top of the module"
        ) from None


def _locals(function: Callable[..., Any]) -> dict[str, Any]:
    """What can be seen where the function is being defined: the variables of the functions around it."""
    found: dict[str, Any] = {}
    module = getattr(inspect.unwrap(function), "__globals__", None)
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        mine = str(frame.f_globals.get("__name__", "")).startswith(_HERE)
        if not mine and frame.f_globals is module:
            found = {**frame.f_locals, **found}  # inner names win
        frame = frame.f_back
    return found
