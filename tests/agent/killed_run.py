"""A run that stops for good in its third turn, for a test to kill: ``python killed_run.py RUNS``."""

from __future__ import annotations

import asyncio
import sys

from keyeloop.agent.agent import Agent
from keyeloop.model_backend.base import Request
from keyeloop.model_backend.scripted import ScriptedBackend, call
from tests.agent.small_tools import add, look


async def hang(request: Request) -> str:
    """Tell the test that the run is here, and never answer."""
    print("hanging", flush=True)
    await asyncio.sleep(600)
    return "never"


if __name__ == "__main__":
    backend = ScriptedBackend([call("look", at_s=7), call("add", a=1, b=2), hang])
    Agent(backend, [add, look], runs=sys.argv[1]).run_sync("what was there?")
