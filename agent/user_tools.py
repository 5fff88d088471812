"""Tools that are named on the command line: ``FILE.py:NAME``, ``mcp:SERVER``, or a built-in one such as ``compare``."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from keyeloop.agent.builtin import OPTIONAL, optional_tool
from keyeloop.runtime.errors import InputError, KeyeloopError
from keyeloop.tools.base import Tool
from keyeloop.tools.decorate import FunctionTool
from keyeloop.tools.toolset import Toolset

MCP = "mcp:"
"""How the tools of a server are named: ``mcp:http://host:port/mcp``, or ``mcp:`` and the command that starts it."""


def load_tools(named: Iterable[str]) -> list[Tool]:
    """The tools that each of some names stands for; a server's, and those of a Toolset in a file, are several.

    Raises as :func:`load_tool` does, and OperatorError for a server that does not answer.
    """
    return [tool for name in named for tool in _load(name)]


def _load(named: str) -> Iterable[Tool]:
    if named.startswith(MCP):
        from keyeloop.tools.mcp.client import McpServer

        where = named.removeprefix(MCP).strip()
        return McpServer(where if where.startswith(("http://", "https://")) else shlex.split(where)).tools
    found = _find(named)
    return found if isinstance(found, Toolset) else [_as_tool(found, named)]


def load_tool(named: str) -> Tool:
    """The tool that ``FILE.py:function`` names; a plain typed function is made one. Or a built-in one, by its name.

    Runs the file. Raises InputError where there is no such file or function, or where the file cannot be imported,
    and ToolDefinitionError for a function that cannot be described to a model.
    """
    return _as_tool(_find(named), named)


def _find(named: str) -> object:
    """What a name stands for: a built-in tool, or what stands under it in a file."""
    builtin = optional_tool(named)
    if builtin is not None:
        return builtin
    file, _, name = named.rpartition(":")
    if not file or not name.isidentifier():
        raise InputError(
            f"tool {named!r} is not FILE.py:function: name a Python file and a function in it, "
            f"or one of {', '.join(OPTIONAL)}"
        )
    module = _import(Path(file))
    found = getattr(module, name, None)
    if found is None:
        known = [key for key, value in vars(module).items() if _is_offer(key, value, module)]
        raise InputError(f"{file} has no {name!r}; it defines {', '.join(known) or 'no function'}")
    return found


def _as_tool(found: Any, named: str) -> Tool:
    if hasattr(found, "spec") and hasattr(found, "call"):
        made: Tool = found
        return made
    if not callable(found):
        file, _, name = named.rpartition(":")
        raise InputError(f"{name!r} in {file} is no function: name a typed function")
    return FunctionTool(found)


def _import(file: Path) -> ModuleType:
    if not file.is_file():
        raise InputError(f"no such file: {file} (tools are named as FILE.py:function)")
    spec = importlib.util.spec_from_file_location(f"keyeloop_user_{file.stem}", file.resolve())
    if spec is None or spec.loader is None:
        raise InputError(f"{file} is no Python file: tools are named as FILE.py:function")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    folder = str(file.resolve().parent)
    sys.path.insert(0, folder)  # so that it can import its neighbours
    try:
        spec.loader.exec_module(module)
    except KeyeloopError:
        raise
    except Exception as error:
        raise InputError(f"{file} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(folder)
    return module


def _is_offer(name: str, value: object, module: ModuleType) -> bool:
    defined_here = getattr(value, "__module__", None) == module.__name__
    return not name.startswith("_") and callable(value) and defined_here
