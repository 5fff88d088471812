"""Tools of every kind: a record as argument, a method, progress, a picture, an error that the model mends.

Needs no weights: `python own_tools.py`, then `keyeloop show` with the folder that it prints.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from keyeloop import Agent, ToolError, tool
from keyeloop.model_backend.scripted import ScriptedBackend, call
from keyeloop.tools import Progress


@dataclass
class Place:
    shelf: Literal["top", "low"]
    slot: Annotated[int, Field(ge=1, le=9)] = 1


class Archive:
    def __init__(self) -> None:
        self.filed: dict[str, int] = {}

    @tool
    def file_number(self, number: int, place: Place) -> dict[str, int]:
        """File a number.

        Args:
            number: What was read.
            place: Where it belongs.
        """
        if f"{place}" in self.filed:
            raise ToolError(f"slot {place.slot} of the {place.shelf} shelf is taken; take another")
        self.filed[f"{place}"] = number
        return self.filed


@tool(timeout_s=20, concurrency=2)
def paint(shades: list[int]) -> Iterator[Any]:
    """Paint stripes."""
    for done, shade in enumerate(shades, 1):
        yield Progress(f"shade {shade}", done, len(shades))
    yield np.repeat(np.array(shades, np.uint8), 28)[None, :, None] * np.ones((56, 1, 3), np.uint8)


if __name__ == "__main__":
    model = ScriptedBackend(
        [
            call("file_number", number=821, place={"shelf": "top", "slott": 2}),  # told: no 'slott'
            call("file_number", number=821, place={"shelf": "top", "slot": 2}),
            call("paint", shades=[0, 90, 255]),
            "Filed and painted.",
        ]
    )
    answer = Agent(model, tools=[Archive().file_number, paint]).run_sync("File 821, then paint.")
    print(answer, answer.run)
