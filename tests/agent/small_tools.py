"""Tools for tests of the loop: tiny, typed, some of them badly behaved."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from keyeloop.runtime.content import Image, Part, Text, ToolSpec
from keyeloop.runtime.errors import SandboxError, ToolError
from keyeloop.runtime.evidence import Region
from keyeloop.tools.base import ToolContext
from keyeloop.tools.decorate import tool

SIDE_PX = 280
"""A picture of ``look`` costs 10 x 10 patches of the scripted model."""


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool(in_order=True)
def look(at_s: float, context: ToolContext) -> list[Part]:
    """Look at a moment of the scene."""
    pixels = np.full((SIDE_PX, SIDE_PX, 3), int(at_s) % 256, np.uint8)
    view = context.views.frame("scene", "5" * 64, at_s, Region(0, 0, SIDE_PX, SIDE_PX))
    return [Text(f"{view.handle} at {at_s:.1f} s"), Image(context.media.put_image(pixels), view)]


@tool
async def wait_for(seconds: float) -> str:
    """Wait."""
    await asyncio.sleep(seconds)
    return f"waited {seconds:g} s"


@tool(timeout_s=0.05)
async def too_slow() -> str:
    """Never in time."""
    await asyncio.sleep(60)
    return "late"


@tool(timeout_s=0.05)
async def stubborn() -> str:
    """Wait on though cancelled, once."""
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await asyncio.sleep(0.01)
    return "late"


@tool
def refuse(why: str) -> str:
    """Say no."""
    raise ToolError(f"not with {why}; try another")


@tool
def crash(denominator: int) -> float:
    """Divide one."""
    return 1 / denominator


@tool
def lost() -> str:
    """Lose the machine."""
    raise SandboxError("the sandbox died (out of memory)")


@tool
async def give_up() -> str:
    """Cancel its own work."""
    raise asyncio.CancelledError


@tool
def leave() -> str:
    """Try to end the program."""
    sys.exit(3)


class Careless:
    """A tool that is no function and gives back what it was made with, unchecked."""

    timeout_s = 5.0

    def __init__(self, *parts: object) -> None:
        self.spec = ToolSpec("careless", "Gives back anything.", {"type": "object"})
        self._parts = parts

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> tuple[Part, ...]:
        """What it was made with."""
        return self._parts  # type: ignore[return-value]

    async def close(self, context: ToolContext) -> None:
        """Nothing to free."""
