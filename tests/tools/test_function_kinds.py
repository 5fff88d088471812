"""Tools of every kind of function: methods, closures, coroutines, generators that report how far they are."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import jsonschema
import pytest

from keyeloop.runtime.content import Text
from keyeloop.runtime.errors import ToolDefinitionError, ToolError
from keyeloop.tools.base import Progress, Tool, ToolContext
from keyeloop.tools.decorate import FunctionTool, tool
from keyeloop.tools.toolset import Toolset


async def texts_of(made: Tool, context: ToolContext, **arguments: Any) -> list[str]:
    parts = await made.call(arguments, context)
    assert all(isinstance(part, Text) for part in parts)
    return [part.text for part in parts if isinstance(part, Text)]


class Shop:
    """Prices of one shop."""

    made = 0

    def __init__(self, factor: int) -> None:
        self.factor = factor

    @tool
    def price(self, item: str, number: int = 1) -> str:
        """Price of an item.

        Args:
            item: Its name.
        """
        return f"{item}: {self.factor * number}"

    @tool
    @classmethod
    def count(cls, step: int) -> int:
        cls.made += step
        return cls.made

    @tool
    @staticmethod
    def greet(name: str) -> str:
        return f"hello {name}"


async def test_methods_belong_to_their_object(context: ToolContext) -> None:
    cheap, dear = Shop(1), Shop(100)
    assert list(cheap.price.spec.parameters["properties"]) == ["item", "number"]
    assert await texts_of(cheap.price, context, item="pen") == ["pen: 1"]
    assert await texts_of(dear.price, context, item="pen", number=2) == ["pen: 200"]
    assert dear.price("ink") == "ink: 100", "and they are still methods"
    assert await texts_of(Shop.count, context, step=3) == ["3"] and Shop.made == 3
    assert await texts_of(Shop.greet, context, name="you") == ["hello you"]
    assert [each.name for each in Toolset([cheap.price, Shop.count, Shop.greet]).specs] == ["price", "count", "greet"]


def test_a_method_of_no_object_is_told_how_to_be_taken() -> None:
    with pytest.raises(ToolDefinitionError, match=r"tool 'price' is a method: take it as Shop\(\.\.\.\)\.price"):
        Toolset([Shop.price])


async def test_a_closure_may_use_types_that_are_local(context: ToolContext) -> None:
    prefix = "at "

    @dataclass
    class Place:
        x: int
        side: Literal["left", "right"] = "left"

    @tool
    def find(place: Place, others: list[Place] | None = None) -> str:
        return f"{prefix}{place.x} {place.side} {len(others or [])}"

    assert await texts_of(find, context, place={"x": 3}, others=[{"x": 1}]) == ["at 3 left 1"]


def told(context: ToolContext) -> tuple[ToolContext, list[Progress]]:
    heard: list[Progress] = []
    return replace(context, on_progress=heard.append), heard


async def test_a_generator_reports_and_all_else_is_its_result(context: ToolContext) -> None:
    watched, heard = told(context)
    threads: set[int] = set()

    @tool
    def read(pages: int) -> Iterator[Any]:
        threads.add(threading.get_ident())
        for page in range(1, pages + 1):
            yield Progress(f"page {page}", page, pages)
        yield "all read"
        yield {"pages": pages}

    assert await texts_of(read, watched, pages=2) == ["all read", '{"pages": 2}']
    assert heard == [Progress("page 1", 1, 2), Progress("page 2", 2, 2), Progress("all read")]
    assert threads != {threading.get_ident()}, "it holds up nobody"


async def test_what_a_generator_returns_is_told_too(context: ToolContext) -> None:
    @tool
    def count() -> Any:
        yield Progress("begun")
        return 417

    @tool
    def nothing() -> Iterator[Progress]:
        yield Progress("begun")

    assert await texts_of(count, context) == ["417"] and await texts_of(nothing, context) == ["done"]


async def test_an_async_generator_is_closed_when_nobody_waits(context: ToolContext) -> None:
    watched, heard = told(context)
    closed = asyncio.Event()

    @tool
    async def watch() -> AsyncIterator[Any]:
        try:
            yield Progress("waiting")
            await asyncio.sleep(60)
            yield "never"
        finally:
            closed.set()

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(watch.call({}, watched), 0.05)
    assert closed.is_set() and heard == [Progress("waiting")]


async def test_a_generator_stops_at_its_next_piece_when_nobody_waits(context: ToolContext) -> None:
    go_on, closed, made = threading.Event(), threading.Event(), []

    @tool
    def endless() -> Iterator[Any]:
        try:
            while go_on.wait(5):
                made.append(1)
                yield Progress("more")
        finally:
            closed.set()

    call = asyncio.create_task(endless.call({}, context))
    await asyncio.sleep(0.02)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    go_on.set()
    assert await asyncio.to_thread(closed.wait, 5) and len(made) == 1


async def test_a_tool_may_report_by_its_context(context: ToolContext) -> None:
    watched, heard = told(context)

    @tool
    def copy(context: ToolContext, files: int) -> int:
        context.report("copying", 1, files)
        return files

    assert await texts_of(copy, watched, files=3) == ["3"] and heard == [Progress("copying", 1, 3)]
    context.report("nobody listens")


@pytest.mark.parametrize(
    "options,problem",
    [
        ({"concurrency": 0}, "concurrency=0"),
        ({"max_text_chars": 5}, "max_text_chars=5"),
        ({"on_crash": "stop"}, "on_crash='stop': give 'end' or 'continue'"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ToolDefinitionError, match=problem):
        tool(name="give", **options)(lambda: 1)


@dataclass
class Point:
    x: int
    label: str = ""


@tool
def mark(points: list[Point], where: Point | str, depth: dict[str, int]) -> str:
    """Mark points."""
    return repr((points, where, depth))


def test_the_strict_schema_refuses_keys_that_nobody_declared() -> None:
    checked = jsonschema.Draft202012Validator(dict(mark.strict_schema))
    fine: dict[str, Any] = {"points": [{"x": 1}], "where": {"x": 2, "label": "b"}, "depth": {"any": 3}}
    assert checked.is_valid(fine)
    assert not checked.is_valid({**fine, "more": 1})
    assert not checked.is_valid({**fine, "points": [{"x": 1, "lable": "typed wrong"}]})
    assert not checked.is_valid({**fine, "where": {"x": 1, "y": 2}})


async def test_dataclasses_arrive_as_such(context: ToolContext) -> None:
    (text,) = await texts_of(mark, context, points=[{"x": 1}], where="here", depth={})
    assert text == repr(([Point(1)], "here", {}))
    with pytest.raises(ToolError, match=r"points\.0\.x"):
        await mark.call({"points": [{"x": "far"}], "where": "a", "depth": {}}, context)


async def test_a_partial_has_what_is_left(context: ToolContext) -> None:
    made = tool(name="mark_low", description="Mark.")(functools.partial(mark, where="low", depth={}))
    assert list(made.spec.parameters["properties"]) == ["points"], "what it holds is not told"
    with pytest.raises(ToolError, match="mark_low has no argument 'where'"):
        await made.call({"points": [], "where": "high"}, context)
    (text,) = await texts_of(made, context, points=[{"x": 4}])
    assert text == repr(([Point(4)], "low", {}))


def test_plain_functions_can_be_methods_of_nothing() -> None:
    def on(self: int) -> int:
        return self

    assert isinstance(tool(on), FunctionTool) and list(tool(on).spec.parameters["properties"]) == ["self"]
