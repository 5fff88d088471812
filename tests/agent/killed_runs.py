"""Runs with tools that are killed with SIGKILL at random instants, gone on with, and held against one that was not.

``python -m tests.agent.killed_runs FOLDER COUNT SEED`` prints one JSON object and leaves what differed in FOLDER.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from keyeloop.agent.agent import Agent
from keyeloop.model_backend.base import Delta, Reply, Request
from keyeloop.model_backend.scripted import ScriptedBackend, call, calls
from keyeloop.runtime.content import Message
from keyeloop.runtime.errors import JournalError
from keyeloop.runtime.journal import is_run, read_journal, steady
from keyeloop.runtime.journal.checking import check_run
from keyeloop.runtime.media import MediaStore
from keyeloop.runtime.trajectory import Trajectory
from keyeloop.tools.base import Tool
from keyeloop.tools.decorate import tool
from keyeloop.tools.python import Python
from keyeloop.tools.video.clip import ClipVideo
from keyeloop.tools.video.zoom import Zoom

QUESTION = "What is on the board?"
SCRIPT: list[Message | str] = [
    call("clip_video", video="video-1", start_s=2, end_s=6, max_frames=3),
    call("python", code="seen = [1, 2]\nprint(len(seen))"),
    calls(
        ("zoom", {"view": "f2", "box": [300, 200, 700, 500]}),
        ("count_up", {"by": 2}),
        ("python", {"code": "seen.append(3)\nprint(seen)"}),
    ),
    call("python", code="print(undefined)"),
    call("clip_video", video="video-1", start_s=9, end_s=12, max_frames=2),
    call("python", code="print(sum(seen))"),
    "The sum is 6 [f2] [z1 100,100,900,900].",
]


@tool
def count_up(by: int) -> int:
    """Count, outside of the run: a call that is made twice shows."""
    with Path(os.environ["COUNTED"]).open("a") as file:
        file.write(f"{by}\n")
    return by


class Remembering(ScriptedBackend):
    """Says its line for as many replies as there are, whichever process asks; it tells of no cache."""

    def __init__(self, asked: Path) -> None:
        super().__init__([lambda request: SCRIPT[replies(request)]] * len(SCRIPT))
        self._asked = asked

    async def generate(
        self, request: Request, media: MediaStore, on_delta: Callable[[Delta], None] | None = None
    ) -> Reply:
        reply = await super().generate(request, media, on_delta)
        with self._asked.open("a") as file:
            file.write(f"{replies(request)}\n")
        return replace(reply, usage=replace(reply.usage, cached_tokens=0))


def replies(request: Request) -> int:
    return sum(message.role == "assistant" for message in request.messages)


def agent(folder: Path) -> Agent:
    os.environ["COUNTED"] = str(folder.parent / f"{folder.name}.counted")
    tools: list[Tool] = [ClipVideo(), Zoom(), Python(), count_up]
    return Agent(Remembering(folder.parent / f"{folder.name}.asked"), tools, runs=folder)


def told(folder: Path) -> list[Any]:
    """What a run records, without times, ids and marks of going on, which its numbers count too."""
    events = [event for event in read_journal(folder) if event.kind != "state_rebuilt"]
    return [{**steady(event), "seq": None} for event in events]


def killed(video: str, runs: Path, after_s: float) -> Path | None:
    """Play the task in a child and kill it; the run's folder, None where there is none yet."""
    child = os.fork()
    if child == 0:
        os.setsid()
        agent(runs).run_sync(QUESTION, video=video)
        os._exit(0)
    while not [path for path in runs.glob("[!.]*") if is_run(path)]:
        time.sleep(0.0005)
    time.sleep(after_s)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return next((path for path in runs.glob("[!.]*") if is_run(path)), None)


def main(folder: Path, count: int, seed: int, video: str) -> dict[str, Any]:
    """Kill ``count`` runs before their end, go on with each, and count what came of it."""
    chance = random.Random(seed)
    whole = asyncio.run(agent(folder / "whole").run(QUESTION, video=video))
    expected, took_s = told(whole.run), Trajectory.read(whole.run).duration_s
    found: Counter[str] = Counter()
    number = 0
    while found["killed"] < count:
        number += 1
        runs = folder / f"killed-{number}"
        run = killed(video, runs, chance.uniform(0, took_s))
        assert run is not None
        if not (run / "journal.jsonl").read_bytes().count(b"\n"):
            found["killed"] += 1
            found["killed before its first line"] += 1
            continue
        check = check_run(run)
        found["torn"] += check.torn
        found["damaged"] += not check.sound
        before = Trajectory.read(run)
        if before.status != "in flight":
            found["had ended"] += 1
            took_s = min(took_s, before.duration_s)
            continue
        found["killed"] += 1
        at = before.events[-1].kind
        recorded = sum(step.reply is not None for step in before.steps)
        counted = sum(
            made.returned is not None and made.called.call.name == "count_up"
            for step in before.steps
            for made in step.calls
        )
        asked, ups = runs.parent / f"{runs.name}.asked", runs.parent / f"{runs.name}.counted"
        asked.unlink(missing_ok=True)
        ups.unlink(missing_ok=True)
        try:
            asyncio.run(agent(runs).resume(run))
        except JournalError as error:
            print(error, file=sys.stderr)
            found["not resumed"] += 1
            continue
        found["resumed"] += 1
        found[f"killed behind {at}"] += 1
        again = told(run) == expected
        found["equal" if again else "other"] += 1
        if not again:
            print(run, file=sys.stderr)
        found["model asked again"] += (
            any(int(line) < recorded for line in asked.read_text().split()) if asked.exists() else 0
        )
        found["recorded call made again"] += counted and ups.exists()
        rebuilt = [one for step in Trajectory.read(run).steps for mark in step.rebuilt for one in mark.calls]
        found["cells rebuilt"] += len(rebuilt)
        found["cells other"] += sum(not one.same for one in rebuilt)
    return {"runs": number, "seconds": round(took_s, 2), **dict(sorted(found.items()))}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])))
