"""Twelve functions that people make tools of; each checks, once it is called, that it got what its hints say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from enum import Enum
from typing import Annotated, Any, Literal, Optional

from pydantic import BaseModel, Field

Define = Callable[[Callable[..., Any]], Any]


class Colour(Enum):
    """A colour."""

    RED = "red"
    BLUE = "blue"


@dataclass
class Point:
    """A point."""

    x: int
    y: int = 0
    label: str | None = None


@dataclass
class Line:
    """Points in a row."""

    points: list[Point]
    colour: Colour = Colour.RED
    tags: dict[str, str] = field(default_factory=dict)


class Item(BaseModel):
    """Something ordered."""

    name: str
    number: int = Field(1, ge=1)


class Order(BaseModel):
    """An order."""

    customer: str
    items: list[Item]
    day: date | None = None


@dataclass
class Circle:
    """A circle."""

    kind: Literal["circle"]
    radius: float


@dataclass
class Square:
    """A square."""

    kind: Literal["square"]
    side: float


def plain(text: str, count: int, ratio: float, exact: bool = False) -> str:
    """Take plain types.

    Args:
        text: Some words.
        count: How many.
        ratio: A share.
        exact: Whether to be exact.
    """
    assert type(text) is str and type(count) is int and type(ratio) in (float, int) and type(exact) is bool
    return "ok"


def choices(mode: Literal["fast", "exact"], level: Literal[1, 2, 3] = 1) -> str:
    """Choose among literals.

    Args:
        mode: How.
        level: How much.
    """
    assert mode in ("fast", "exact") and level in (1, 2, 3)
    return "ok"


def enums(colour: Colour, others: list[Colour]) -> str:
    """Choose from an enumeration.

    Args:
        colour: Of the thing.
        others: Of other things.
    """
    assert isinstance(colour, Colour) and all(isinstance(other, Colour) for other in others)
    return "ok"


def optionals(limit: int | None = None, note: Optional[str] = None) -> str:  # noqa: UP045 - as people write it
    """Take what may be missing.

    Args:
        limit: At most.
        note: A remark.
    """
    assert limit is None or type(limit) is int
    assert note is None or type(note) is str
    return "ok"


def unions(key: int | str, value: list[int] | dict[str, int]) -> str:
    """Take one thing or another.

    Args:
        key: A number or a name.
        value: A list or a table.
    """
    assert type(key) in (int, str) and type(value) in (list, dict)
    return "ok"


def dataclasses(line: Line, origin: Point) -> str:
    """Take dataclasses within dataclasses.

    Args:
        line: What to draw.
        origin: Where.
    """
    assert isinstance(line, Line) and isinstance(origin, Point) and isinstance(line.colour, Colour)
    assert all(isinstance(point, Point) for point in line.points)
    return "ok"


def models(order: Order, urgent: bool = False) -> str:
    """Take a pydantic model.

    Args:
        order: What is wanted.
        urgent: Whether it cannot wait.
    """
    assert type(urgent) is bool
    assert isinstance(order, Order) and all(isinstance(item, Item) for item in order.items)
    return "ok"


def annotated(
    count: Annotated[int, Field(ge=1, le=9, description="How many.")],
    code: Annotated[str, Field(pattern=r"^[A-Z]{2}\d+$", description="Two letters and digits.")],
    share: Annotated[float, Field(gt=0, lt=1, description="Between none and all.")] = 0.5,
) -> str:
    """Take what is within bounds."""
    assert 1 <= count <= 9 and 0 < share < 1 and code[:2].isupper()
    return "ok"


def containers(names: list[str], table: dict[str, float], pair: tuple[int, str], tags: set[str]) -> str:
    """Take containers.

    Args:
        names: Names.
        table: Numbers by name.
        pair: A number and its unit.
        tags: Each once.
    """
    assert type(names) is list and type(table) is dict and type(pair) is tuple and type(tags) is set
    return "ok"


async def asynchronous(name: str, day: date, times: int = 1) -> str:
    """Wait for something.

    Parameters
    ----------
    name : str
        Whose it is.
    day : date
        When.
    times : int, optional
        How often.
    """
    assert type(name) is str and type(day) is date and type(times) is int
    return "ok"


class Shop:
    """A place with a method."""

    def price(self, item: str, *, number: int = 1, colour: Colour = Colour.RED) -> str:
        """Tell a price.

        :param item: What is asked for.
        :param number: How many.
        :param colour: In which colour.
        """
        assert type(item) is str and type(number) is int and isinstance(colour, Colour)
        return "ok"


def closure(define: Define) -> Any:
    """A tool that is made where its types are: within a function."""

    @dataclass
    class Shelf:
        board: Literal["top", "low"]
        shape: Circle | Square = field(metadata={})

    def put(what: str, shelf: Shelf, rest: list[Shelf] | None = None) -> str:
        """Put something on a shelf.

        Args:
            what: What to put.
            shelf: Where to.
            rest: Where else.
        """
        assert isinstance(shelf, Shelf) and isinstance(shelf.shape, Circle | Square)
        assert rest is None or all(isinstance(one, Shelf) for one in rest)
        return "ok"

    return define(put)


def makers() -> dict[str, Callable[[Define], Any]]:
    """What has a tool made of each function, by its name in the table."""
    kept: dict[str, Callable[..., Any]] = {
        "plain types": plain,
        "Literal": choices,
        "Enum": enums,
        "Optional": optionals,
        "unions": unions,
        "dataclasses": dataclasses,
        "pydantic models": models,
        "Annotated bounds": annotated,
        "containers": containers,
        "async, NumPy docstring": asynchronous,
        "bound method, Sphinx docstring": Shop().price,
    }
    made: dict[str, Callable[[Define], Any]] = {
        name: lambda define, function=function: define(function)  # type: ignore[misc]
        for name, function in kept.items()
    }
    return {**made, "closure with local types": closure}
