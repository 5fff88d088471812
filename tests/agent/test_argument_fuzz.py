"""Arguments of any type meet a schema: a call is made, or the model is told what to correct; never an exception."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import Field

from keyeloop.agent.dispatch import Dispatcher
from keyeloop.model_backend.scripted import PatchCost
from keyeloop.runtime.content import Text, ToolCall
from keyeloop.runtime.media import MediaStore
from keyeloop.runtime.views import ViewBook
from keyeloop.tools.base import ToolContext
from keyeloop.tools.decorate import tool
from keyeloop.tools.toolset import Toolset


class Side(Enum):
    LEFT = "left"
    RIGHT = "right"


@dataclass
class Place:
    x: int
    side: Side = Side.LEFT


@tool
def put(
    what: str | int,
    where: list[Place],
    how: Literal["soft", "hard"] = "soft",
    times: Annotated[int, Field(ge=1, le=3)] = 1,
    box: tuple[float, float] | None = None,
) -> str:
    """Put things somewhere."""
    assert all(isinstance(place, Place) and isinstance(place.side, Side) for place in where)
    assert isinstance(what, str | int) and how in ("soft", "hard") and 1 <= times <= 3
    return "put"


scalars = st.none() | st.booleans() | st.integers(-2, 5) | st.floats() | st.sampled_from(["left", "up", "soft", ""])
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "side", "y"]), inner, max_size=3),
    max_leaves=6,
)
places = st.fixed_dictionaries({"x": st.integers()}, optional={"side": st.sampled_from(["left", "right", "up", 3])})
arguments = st.fixed_dictionaries(
    {},
    optional={
        "what": values | st.text(max_size=3),
        "where": values | st.lists(places, max_size=2),
        "how": values,
        "times": values | st.integers(0, 4),
        "box": values | st.tuples(st.floats(0, 1), st.floats(0, 1)).map(list),
        "more": values,
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arguments)
@example({"what": "a", "where": [{"x": 1}], "times": 2, "box": [0, 1]})
@example({"what": "a", "where": [], "box": "[0, 1]"})
@example({"what": True, "where": []})
def test_arguments_fit_or_the_model_is_told_why(tmp_path: Path, given_arguments: dict[str, Any]) -> None:
    context = ToolContext({}, MediaStore(tmp_path), ViewBook(), PatchCost(), 100)
    dispatcher = Dispatcher(Toolset([put]), context)
    made = ToolCall("call-1", "put", given_arguments)
    problem = dispatcher.problem(made)
    if problem is not None:
        assert problem.startswith("put: ") and len(problem) > 12
        return

    async def outcome() -> tuple[bool, str]:
        async for done in dispatcher.run([made]):
            assert done.crash is None, done.crash
            (part,) = done.result.parts
            assert isinstance(part, Text)
            return done.result.error, part.text
        raise AssertionError

    error, text = asyncio.run(outcome())
    assert text == "put" if not error else text.startswith("Error: argument ")


def test_an_example_is_put() -> None:
    assert put("a", [Place(1)]) == "put"
