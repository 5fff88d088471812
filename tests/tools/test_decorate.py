"""``@tool``: what a function's hints and docstring become, and what its results become."""

from __future__ import annotations

import asyncio
import enum
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from pydantic import BaseModel, Field

from keyeloop.runtime.content import Text
from keyeloop.runtime.errors import ToolDefinitionError, ToolError
from keyeloop.tools.base import Tool, ToolContext
from keyeloop.tools.decorate import FunctionTool, tool


async def text_of(made: Tool, context: ToolContext, **arguments: Any) -> str:
    (part,) = await made.call(arguments, context)
    assert isinstance(part, Text)
    return part.text


class Shelf(enum.Enum):
    TOP = "top"
    LOW = "low"


class Point(BaseModel):
    x: int
    title: str = "here"


@tool
def file_number(number: int, shelf: str, copies: int = 1) -> str:
    """File a number on a shelf."""
    return f"filed {number!r} on {shelf} x{copies}"


def test_the_schema_is_compact_and_in_the_functions_order() -> None:
    assert file_number.spec.name == "file_number" and file_number.spec.description == "File a number on a shelf."
    assert json.dumps(file_number.spec.parameters) == (
        '{"type": "object", "properties": {"number": {"type": "integer"}, "shelf": {"type": "string"}, '
        '"copies": {"type": "integer", "default": 1}}, "required": ["number", "shelf"]}'
    )


def test_it_is_a_tool_and_still_a_function() -> None:
    made: Tool = file_number
    assert made.timeout_s == 60 and file_number(3, "a") == "filed 3 on a x1"
    assert file_number.__doc__ == "File a number on a shelf."


def test_every_kind_of_hint() -> None:
    @tool
    def many(
        box: tuple[float, float, float, float],
        kind: Literal["a", "b"],
        shelf: Shelf,
        point: Point,
        table: dict[str, int],
        names: list[str],
        count: Annotated[int, Field(ge=1, le=9, description="How many.")],
        json: str,
        title: str,
        limit: int | None = None,
        where: Path = Path(),
    ) -> None:
        """Take all of it.

        Args:
            names: The names.
            count: Not this text.
        """

    schema: dict[str, Any] = dict(many.spec.parameters)
    jsonschema.Draft202012Validator.check_schema(schema)
    properties = schema["properties"]
    assert properties["box"] == {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}
    assert properties["kind"] == {"type": "string", "enum": ["a", "b"]}
    assert properties["table"] == {"type": "object", "additionalProperties": {"type": "integer"}}
    assert properties["names"] == {"type": "array", "description": "The names.", "items": {"type": "string"}}
    assert properties["count"] == {"type": "integer", "description": "How many.", "maximum": 9, "minimum": 1}
    assert properties["limit"] == {"type": ["integer", "null"], "default": None}
    assert properties["title"] == {"type": "string"}
    assert schema["$defs"]["Point"]["properties"] == {
        "x": {"type": "integer"},
        "title": {"type": "string", "default": "here"},
    }
    assert "limit" not in schema["required"] and "where" not in schema["required"]


async def test_arguments_become_what_the_hints_say(context: ToolContext) -> None:
    @tool
    def show(shelf: Shelf, point: Point, ratio: float, box: tuple[int, int]) -> str:
        return repr((shelf, point, ratio, box))

    shown = await text_of(show, context, shelf="low", point={"x": 3}, ratio=2, box=[1, 2])
    assert shown == repr((Shelf.LOW, Point(x=3), 2.0, (1, 2)))


@pytest.mark.parametrize(
    "arguments,problem",
    [
        ({"number": "many", "shelf": "a"}, "argument 'number' of file_number: .*valid integer.*got 'many'"),
        ({"number": 1}, "argument 'shelf' of file_number is missing"),
        ({"number": 1, "shelf": "a", "x": 2}, "file_number has no argument 'x'; its arguments: number, shelf, copies"),
        ({"number": 1.5, "shelf": "a"}, "argument 'number'"),
    ],
)
async def test_wrong_arguments_are_told_to_the_model(
    context: ToolContext, arguments: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ToolError, match=problem):
        await file_number.call(arguments, context)


async def test_the_context_is_injected_and_hidden(context: ToolContext) -> None:
    @tool
    async def budget(run: ToolContext, factor: int, /, *, plus: int = 0) -> int:
        await asyncio.sleep(0)
        return run.visual_budget_tokens * factor + plus

    assert list(budget.spec.parameters["properties"]) == ["factor", "plus"]
    assert await text_of(budget, context, factor=2, plus=5) == "205"


def untyped(a: int, b) -> None: ...  # type: ignore[no-untyped-def]
def starred(*values: int) -> None: ...
def keyworded(**values: int) -> None: ...
def unknowable(lock: threading.Lock) -> None: ...
def unresolved(x: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821


class Method:
    def on(self, x: int) -> int:
        return x + 1


@pytest.mark.parametrize(
    "function,problem",
    [
        (untyped, "parameter 'b' of tool 'untyped' has no type: write b: str"),
        (starred, r"tool 'starred' takes \*values: a model must know every argument"),
        (keyworded, r"tool 'keyworded' takes \*\*values"),
        (unknowable, "tool 'unknowable' has a parameter that JSON cannot carry"),
        (unresolved, "type hint of tool 'unresolved' cannot be resolved .*Nowhere.*top of the module"),
        (lambda: 1, "is no name for a tool"),
    ],
)
def test_what_cannot_be_a_tool_names_the_cure(function: Callable[..., Any], problem: str) -> None:
    with pytest.raises(ToolDefinitionError, match=problem):
        tool(function)


async def test_bound_methods_and_options(context: ToolContext) -> None:
    made = tool(name="add-one", description="Add.", timeout_s=2, in_order=True)(Method().on)
    assert isinstance(made, FunctionTool)
    assert (made.spec.name, made.spec.description, made.timeout_s, made.in_order) == ("add-one", "Add.", 2, True)
    assert await text_of(made, context, x=1) == "2"
    with pytest.raises(ToolDefinitionError, match="timeout_s"):
        tool(timeout_s=0)(Method().on)


def test_what_asks_for_the_context_is_called_in_order() -> None:
    def draw(context: ToolContext) -> str:
        return "drawn"

    assert (
        tool(draw).in_order
        and not tool(in_order=False)(draw).in_order
        and not tool(
            Method().on,
        ).in_order
    )


async def test_a_blocking_function_holds_up_nobody(context: ToolContext) -> None:
    release = threading.Event()

    @tool
    def wait() -> str:
        return "released" if release.wait(10) else "late"

    running = asyncio.create_task(text_of(wait, context))
    await asyncio.sleep(0.05)
    assert not running.done()
    release.set()
    assert await running == "released"


async def test_errors_of_a_function_come_out_as_they_are(context: ToolContext) -> None:
    @tool
    def fail(kind: str) -> None:
        raise {"tool": ToolError("look again"), "stop": StopIteration("x")}.get(kind, ValueError("broken"))

    with pytest.raises(ToolError, match="look again"):
        await fail.call({"kind": "tool"}, context)
    with pytest.raises(ValueError, match="broken"):
        await fail.call({"kind": "other"}, context)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await fail.call({"kind": "stop"}, context)


async def test_an_abandoned_call_settles_nothing(context: ToolContext) -> None:
    finished = threading.Event()

    @tool
    def slow() -> str:
        time.sleep(0.05)
        finished.set()
        return "late"

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(slow.call({}, context), 0.01)
    assert await asyncio.to_thread(finished.wait, 5)
    await asyncio.sleep(0.01)
