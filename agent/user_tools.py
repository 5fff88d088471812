"""Tools that are named on the command line: ``FILE.py:function``, or a built-in one such as ``compare``."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from keyeloop.agent.builtin import OPTIONAL, optional_tool
from keyeloop.runtime.errors import InputError, KeyeloopError
from keyeloop.tools.base import Tool
from keyeloop.tools.decorate import FunctionTool


def load_tool(named: str) -> Tool:
    """The tool that ``FILE.py:function`` names; a plain typed function is made one. Or a built-in one, by its name.

    Runs the file. Raises InputError where there is no such file or function, or where the file cannot be imported,
    and ToolDefinitionError for a function that cannot be described to a model.
    """
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
    if hasattr(found, "spec") and hasattr(found, "call"):
        made: Tool = found
        return made
    if not callable(found):
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
