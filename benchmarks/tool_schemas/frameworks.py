"""How each framework makes a tool of a function, what schema it has, and how it checks and makes a call."""

from __future__ import annotations

import asyncio
import inspect
import json
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

Function = Callable[..., Any]


class Made(NamedTuple):
    """A tool as a framework made it."""

    schema: dict[str, Any]
    """What calls are held to."""
    told: dict[str, Any]
    """What the model is told."""
    call: Callable[[dict[str, Any]], Any]
    """Check the arguments and call the function; raises where they are refused."""
    note: str = ""


def ours(function: Function) -> Made:
    """keyeloop: ``@tool``."""
    from keyeloop.agent.dispatch import Dispatcher
    from keyeloop.model_backend.scripted import PatchCost
    from keyeloop.runtime.content import Text, ToolCall
    from keyeloop.runtime.media import MediaStore
    from keyeloop.runtime.views import ViewBook
    from keyeloop.tools.base import ToolContext
    from keyeloop.tools.decorate import tool
    from keyeloop.tools.toolset import Toolset

    made = tool(function)

    def call(arguments: dict[str, Any]) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            context = ToolContext({}, MediaStore(Path(folder)), ViewBook(), PatchCost(), 100)
            dispatcher = Dispatcher(Toolset([made]), context)
            asked = ToolCall("call-1", made.spec.name, arguments)
            problem = dispatcher.problem(asked)
            if problem is not None:
                raise ValueError(problem)
            return asyncio.run(_first(dispatcher, asked, Text))

    return Made(dict(made.strict_schema), dict(made.spec.parameters), call)


async def _first(dispatcher: Any, asked: Any, text: Any) -> str:
    async for outcome in dispatcher.run([asked]):
        said = "".join(part.text for part in outcome.result.parts if isinstance(part, text))
        if outcome.result.error:
            raise ValueError(said)
        return said
    raise AssertionError


def pydantic_ai(function: Function) -> Made:
    """pydantic-ai: ``Tool(function)``."""
    from pydantic_ai import Tool

    made: Any = Tool(function, takes_ctx=False)
    schema = made.function_schema

    def call(arguments: dict[str, Any]) -> Any:
        checked = schema.validator.validate_json(json.dumps(arguments))
        return asyncio.run(schema.call(checked, None))

    return Made(dict(schema.json_schema), dict(schema.json_schema), call)


def openai_agents(function: Function) -> Made:
    """openai-agents: ``function_tool``, in its strict mode; without it where that refuses the function."""
    from agents.function_schema import function_schema

    note = ""
    try:
        made: Any = function_schema(function)
    except Exception as error:
        made = function_schema(function, strict_json_schema=False)
        note = f"not in strict mode ({type(error).__name__})"

    def call(arguments: dict[str, Any]) -> Any:
        positional, named = made.to_call_args(made.params_pydantic_model(**arguments))
        return _finished(function(*positional, **named))

    return Made(dict(made.params_json_schema), dict(made.params_json_schema), call, note)


def smolagents(function: Function) -> Made:
    """smolagents: ``@tool``."""
    from smolagents import tool
    from smolagents.models import get_tool_json_schema
    from smolagents.tools import validate_tool_arguments

    made: Any = tool(function)
    schema = get_tool_json_schema(made)["function"]["parameters"]

    def call(arguments: dict[str, Any]) -> Any:
        validate_tool_arguments(made, arguments)
        return _finished(made(**arguments))

    return Made(schema, schema, call)


def _finished(value: Any) -> Any:
    return asyncio.run(_awaited(value)) if inspect.isawaitable(value) else value


async def _awaited(value: Any) -> Any:
    return await value


FRAMEWORKS: dict[str, tuple[Callable[[Function], Made], str]] = {
    "keyeloop": (ours, "keyeloop"),
    "pydantic-ai": (pydantic_ai, "pydantic-ai-slim"),
    "openai-agents": (openai_agents, "openai-agents"),
    "smolagents": (smolagents, "smolagents"),
}


def version_of(package: str) -> str:
    """Its version, as installed."""
    return version(package)
