"""What the client itself costs: processor time of a turn, beside a bare httpx loop that sends the same requests.

Run ``python benchmarks/client_overhead.py`` from the repository: prints a table and writes
``benchmarks/results/client_overhead.json``. The model is a loopback server in a process of its own that answers each
request at once, so that what is left is the client: building and sending requests, reading the stream, calling the
tool, and the record on disk. The bare loop keeps a list of messages, encodes each frame once, and writes the whole
request with ``json.dumps``, as small agents do; it records nothing. The frames' own storing, which is the work of a
tool, is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
from chat_server import TURNS, served

from keyeloop import Agent, tool
from keyeloop.model_backend.openai_chat.backend import OpenAIChat
from keyeloop.model_backend.openai_chat.messages import tool_form
from keyeloop.model_backend.scripted import PatchCost
from keyeloop.runtime.budget import Limits
from keyeloop.runtime.content import Image, Part, Text
from keyeloop.runtime.events import ReplyReceived
from keyeloop.runtime.trajectory import Trajectory
from keyeloop.tools.base import Tool, ToolContext

RESULT = Path(__file__).resolve().parent / "results" / "client_overhead.json"
RUNS_AT_ONCE, WIDTH, HEIGHT = 64, 1280, 720
LIBRARIES = ("httpx", "httpcore", "sniffio", "pydantic")
GOALS = {"text_cpu_ms": 3.0, "frames_cpu_ms": 8.0, "concurrent_s": 5.0}
SYSTEM = "You answer questions about videos. Look before you answer, and cite the frame that shows it."
QUESTION = "What number is on the board at 83 s?"
NOTE = "f1 at 83.0 s: the second row reads 417, the third is covered by a hand until 84.5 s. " * 5


def draw_frames() -> list[bytes]:
    """Frames as large as those of a film, as JPEG."""
    random = np.random.default_rng(0)
    frames = []
    for _ in range(TURNS):
        coarse = random.integers(0, 256, (HEIGHT // 16, WIDTH // 16, 3), dtype=np.uint8)
        pixels = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        noisy = np.clip(pixels.astype(np.int16) + random.integers(-2, 3, pixels.shape), 0, 255).astype(np.uint8)
        frames.append(bytes(cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 70])[1]))
    return frames


class Looking:
    """The one tool of a run: a note, or a frame. Keeps the processor time of storing frames apart."""

    def __init__(self, frames: Sequence[bytes] | None) -> None:
        self.own_cpu_s = 0.0

        @tool
        def look(number: int, context: ToolContext) -> str | list[Part]:
            """Look at the next moment."""
            if frames is None:
                return NOTE
            started_s = time.process_time()
            picture = context.media.put_bytes(frames[number])
            self.own_cpu_s += time.process_time() - started_s
            return [Text(f"f{number + 1} at {80 + number}.0 s"), Image(picture)]

        self.tool: Tool = look


async def bare_run(http: httpx.AsyncClient, base: str, tools: list[Any], frames: Sequence[bytes] | None) -> None:
    """One run by hand."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
    while True:
        body = {"model": "m", "messages": messages, "tools": tools, "temperature": 0, "max_tokens": 1024}
        sent = json.dumps(body | {"stream": True, "stream_options": {"include_usage": True}}).encode()
        text, call = "", {"name": "", "arguments": ""}
        headers = {"Content-Type": "application/json"}
        async with http.stream("POST", base + "/chat/completions", content=sent, headers=headers) as response:
            async for line in response.aiter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                for choice in json.loads(line[6:])["choices"]:
                    text += choice["delta"].get("content") or ""
                    for made in choice["delta"].get("tool_calls") or ():
                        call = {name: call[name] + made["function"].get(name, "") for name in call}
        if not call["name"]:
            return
        number = json.loads(call["arguments"])["number"]
        made = {"id": f"call-{number + 1}", "type": "function", "function": call}
        messages.append({"role": "assistant", "content": text, "tool_calls": [made]})
        content: str | list[Any] = NOTE
        if frames is not None:
            url = f"data:image/jpeg;base64,{base64.b64encode(frames[number]).decode()}"
            words = {"type": "text", "text": f"f{number + 1} at {80 + number}.0 s"}
            content = [words, {"type": "image_url", "image_url": {"url": url}}]
        messages.append({"role": "tool", "tool_call_id": made["id"], "content": content})


class Bare:
    """The loop by hand."""

    def __init__(self, base: str, frames: Sequence[bytes] | None, _: Path) -> None:
        self._base, self._frames = base, frames
        self._tools = [tool_form(Looking(frames).tool.spec)]
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=RUNS_AT_ONCE)
        self._http = httpx.AsyncClient(timeout=60, limits=limits, trust_env=False)
        self.own_cpu_s = 0.0

    async def run(self, count: int) -> None:
        """``count`` runs at a time."""
        await asyncio.gather(*(bare_run(self._http, self._base, self._tools, self._frames) for _ in range(count)))

    async def close(self) -> None:
        await self._http.aclose()


class Ours:
    """keyeloop's agent, its record on."""

    def __init__(self, base: str, frames: Sequence[bytes] | None, runs: Path) -> None:
        self._looking = Looking(frames)
        self._model = OpenAIChat(
            f"{base}#m", context_tokens=262_144, pictures="tool", call_form="native", cost=PatchCost(patch_px=40)
        )
        self._agent = Agent(
            self._model,
            tools=[self._looking.tool],
            system=SYSTEM,
            limits=Limits(turns=TURNS, tool_calls=TURNS),
            runs=runs,
        )

    @property
    def own_cpu_s(self) -> float:
        return self._looking.own_cpu_s

    async def run(self, count: int) -> None:
        """``count`` runs at a time."""
        self._outcomes = await self._agent.run_many([QUESTION] * count, concurrency=count)

    async def close(self) -> None:
        """Each run has to have taken all its turns, and to have them in its record."""
        for outcome in self._outcomes:
            assert outcome.status == "answered" and outcome.run is not None, outcome.reason
            assert sum(isinstance(event, ReplyReceived) for event in Trajectory.read(outcome.run).events) == TURNS
        await self._agent.close()
        await self._model.close()


CLIENTS: dict[str, Callable[[str, Sequence[bytes] | None, Path], Bare | Ours]] = {"bare": Bare, "keyeloop": Ours}


async def measure(options: argparse.Namespace, base: str, scratch: Path) -> dict[str, Any]:
    """All figures of both clients; they take turns, so that what else the machine does hits both."""
    frames = draw_frames()
    figures: dict[str, Any] = {name: {} for name in CLIENTS}
    async with httpx.AsyncClient(trust_env=False) as asking:

        async def counted(work: Callable[[], Awaitable[None]]) -> int:
            before = (await asking.get(base + "/count")).json()["bytes"]
            await work()
            return int((await asking.get(base + "/count")).json()["bytes"]) - before

        for case, shown in (("text", None), ("frames", frames)):
            seconds: dict[str, list[float]] = {name: [] for name in CLIENTS}
            for repeat in range(options.repeats + 1):  # the first one warms up
                for name, make in CLIENTS.items():
                    client = make(base, shown, scratch / f"{case}-{repeat}")
                    started_s = time.process_time()
                    sent = await counted(partial(client.run, 1))
                    spent_s = time.process_time() - started_s - client.own_cpu_s
                    seconds[name] += [spent_s] * (repeat > 0)
                    figures[name][f"{case}_sent_bytes"] = sent
                    await client.close()
            for name, values in seconds.items():
                figures[name][f"{case}_cpu_ms"] = statistics.median(values) / TURNS * 1000
        walls: dict[str, list[float]] = {name: [] for name in CLIENTS}
        for repeat in range(max(3, options.repeats // 2)):
            for name, make in CLIENTS.items():
                client = make(base, None, scratch / f"many-{repeat}")
                started_s = time.monotonic()
                await client.run(RUNS_AT_ONCE)
                walls[name].append(time.monotonic() - started_s)
                await client.close()
        for name, values in walls.items():
            figures[name]["concurrent_s"] = statistics.median(values)
    return figures


def cpu_name() -> str:
    """The processor, as the system calls it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main() -> int:
    """Measure, print and store; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--no-store", action="store_true", help="only print")
    options = parser.parse_args()
    load_before = os.getloadavg()[0]
    with served() as base, tempfile.TemporaryDirectory() as scratch:
        figures = asyncio.run(measure(options, base, Path(scratch)))
    ours, bare = figures["keyeloop"], figures["bare"]
    checks = {name: ours[name] <= goal for name, goal in GOALS.items()}
    result = {
        "what": f"client only, loopback server: {TURNS} turns of text, with a {WIDTH}x{HEIGHT} frame each, and "
        f"{RUNS_AT_ONCE} runs of text at a time; CPU of this process for a turn, journal on",
        "figures": figures,
        "ratios": {name: ours[name] / bare[name] for name in ours},
        "goals": GOALS,
        "checks": checks,
        "repeats": options.repeats,
        "machine": {"processor": cpu_name(), "cores": os.cpu_count(), "load_before": round(load_before, 2)},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
        "date": datetime.now(UTC).date().isoformat(),
    }
    print(f"{'':22}{'bare':>12}{'keyeloop':>12}{'ratio':>8}{'goal':>8}")
    for name in ours:
        goal = f"{GOALS[name]:8.4g}" if name in GOALS else ""
        print(f"{name:22}{bare[name]:12,.4g}{ours[name]:12,.4g}{ours[name] / bare[name]:8.2f}{goal}")
    print(f"load before: {load_before:.1f}")
    if not options.no_store:
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
