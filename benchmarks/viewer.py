"""The viewer on a long run and on many runs: time until a page stands in a browser, memory on both sides.

Run ``python benchmarks/viewer.py`` from the repository, after ``bash .ci/browser_environment``: prints a table and
writes ``benchmarks/results/viewer.json``. The long run has 10,000 events and 2,000 different 1280x720 frames of half a
megabyte; the many are 5,000 copies of a recorded one. Each figure is the median of several starts of ``keyeloop view``,
each with a fresh browser, so nothing is known from before but what the system keeps of files, and what the viewer keeps
of a folder of many runs; ``many_first`` is without that. ``server`` is the time of
the first answer; ``browser`` goes from the address being typed to the page's load event; memory is the most that the
server held at once, and what the browser's process of that page holds (proportional share).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from keyeloop import Agent
from keyeloop.model_backend.scripted import ScriptedBackend
from keyeloop.runtime.clock import SystemClock
from keyeloop.runtime.content import Image, Message, Text, ToolCall, Usage
from keyeloop.runtime.events import ReplyReceived, RequestSent, RunEnded, RunStart, ToolCalled, ToolReturned
from keyeloop.runtime.evidence import Region, Source, View
from keyeloop.runtime.journal import Journal
from keyeloop.runtime.wire import parts_to_wire, to_wire

RESULT = Path(__file__).resolve().parent / "results" / "viewer.json"
EVENTS, FRAMES, RUNS = 10_000, 2_000, 5_000
WIDTH, HEIGHT, LENGTH_S = 1280, 720, 3600.0
GOALS = {"long_listed_s": 0.3, "long_opens_s": 1.0, "many_listed_s": 1.0, "memory_mb": 300.0}
BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")


def write_long(folder: Path, events: int, frames: int) -> None:
    """One run of ``events`` events that was shown ``frames`` frames of an hour."""
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    picture = cv2.addWeighted(noise, 0.05, cv2.GaussianBlur(noise, (0, 0), 3), 0.95, 0)
    whole = Region(0, 0, WIDTH, HEIGHT)
    source = Source("video-1", "video", "5" * 64, "hour.mp4", WIDTH, HEIGHT, LENGTH_S)
    steps = (events - 2) // 4
    with Journal.create(folder, SystemClock()) as journal:
        journal.append(
            RunStart(
                run_id="long",
                question="What happens in this hour?",
                model="scripted",
                inputs=(source,),
                messages=(to_wire(Message("user", (Text("What happens in this hour?"),))),),
            )
        )
        for turn in range(1, steps + 1):
            call = ToolCall(f"c{turn}", "clip_video", {"video": "video-1", "start_s": turn, "end_s": turn})
            said = Message("assistant", reasoning=f"I look at second {turn}. " * 8, tool_calls=(call,))
            usage = Usage(1000 + 20 * turn, 900 + 20 * turn, 40, 60, 30)
            parts: list[Text | Image] = [Text(f"video-1: f{turn} at {turn:.1f} s. " * 4)]
            if turn <= frames:
                media = journal.media.put_image(np.roll(picture, (turn, turn // HEIGHT), axis=(0, 1)))
                at_s = turn * LENGTH_S / (frames + 1)
                parts.append(Image(media, View(f"f{turn}", "video-1", source.sha256, at_s, whole)))
            journal.append(RequestSent(turn=turn, messages=2 * turn, input_tokens=usage.input_tokens))
            journal.append(
                ReplyReceived(turn=turn, message=to_wire(said), usage=usage, finish="tool_calls", duration_s=0.5)
            )
            journal.append(ToolCalled(turn=turn, call=call))
            journal.append(
                ToolReturned(turn=turn, call_id=call.id, name=call.name, parts=parts_to_wire(parts), duration_s=0.1)
            )
        journal.append(RunEnded(status="answered", answer="Much [f1].", duration_s=1.0))


def write_many(root: Path, count: int) -> None:
    """``count`` copies of a small recorded run, each with its own question."""
    first = Agent(ScriptedBackend(["It is 417."]), [], runs=root).run_sync("What is it, number 0000?").run
    line_start, _, rest = (Path(first) / "journal.jsonl").read_text().partition("\n")
    begin = json.loads(line_start)
    del begin["crc32"]
    for number in range(1, count):
        folder = root / f"run-{number:05}"
        folder.mkdir()
        told = begin | {"question": f"What is it, number {number}?", "time_s": begin["time_s"] - number}
        (folder / "journal.jsonl").write_text(json.dumps(told) + "\n" + rest)


@contextmanager
def served(root: Path, *, first: bool = False) -> Iterator[tuple[str, int]]:
    """``keyeloop view``: its address and its process; as if for the ``first`` time, with nothing kept from before."""
    command = [sys.executable, "-c", "from keyeloop.agent.cli import main; main()", "view", str(root), "--port", "0"]
    with (
        tempfile.TemporaryDirectory() as empty,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "XDG_CACHE_HOME": empty} if first else None,
        ) as server,
    ):
        assert server.stdout is not None
        try:
            yield server.stdout.readline().split()[0], server.pid
        finally:
            server.terminate()
            server.wait(10)


def measure(root: Path, path: str, settled: str, *, first: bool = False) -> dict[str, float]:
    """One start of server and browser, and one page."""
    from playwright.sync_api import sync_playwright

    with served(root, first=first) as (url, server):
        began_s, began_cpu_s = time.perf_counter(), _cpu_s(server)
        with urllib.request.urlopen(url + path) as answer:
            size = len(answer.read())
        server_s, server_cpu_s = time.perf_counter() - began_s, _cpu_s(server) - began_cpu_s
    with served(root, first=first) as (url, server), sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=next(filter(None, map(shutil.which, BROWSERS))), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto("about:blank")
        began_s = time.perf_counter()
        page.goto(url + path, wait_until="load")
        browser_s = time.perf_counter() - began_s
        page.locator(settled).first.wait_for()
        page.wait_for_timeout(500)
        processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
        renderers = [int(one["id"]) for one in processes if one["type"] == "renderer"]
        figures = {
            "server_s": server_s,
            "server_cpu_s": server_cpu_s,
            "browser_s": browser_s,
            "browser_cpu_s": sum(float(one["cpuTime"]) for one in processes if one["type"] == "renderer"),
            "page_kb": size / 1e3,
            "server_mb": _status_mb(server, "VmHWM"),
            "browser_mb": max(_share_mb(process) for process in renderers),
        }
        browser.close()
    return figures


def _status_mb(process: int, field: str) -> float:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def _cpu_s(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _share_mb(process: int) -> float:
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def medians(taken: list[dict[str, float]]) -> dict[str, float]:
    """Of each figure."""
    return {name: round(statistics.median(one[name] for one in taken), 4) for name in taken[0]}


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--work", type=Path, default=None, help="keep the runs here and use them again")
    parser.add_argument("--result", type=Path, default=RESULT)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        work = asked.work or Path(made)
        if not (work / "long").exists():
            write_long(work / "long" / "long", EVENTS, FRAMES)
        if not (work / "many").exists():
            write_many(work / "many", RUNS)
        media_mb = sum(path.stat().st_size for path in (work / "long/long/media").rglob("*") if path.is_file()) / 1e6
        pages = {
            "long_listed": (work / "long", "", "a.asked"),
            "long_opens": (work / "long", "run/long", "#step-1 img"),
            "many_first": (work / "many", "", "a.asked"),
            "many_listed": (work / "many", "", "a.asked"),
            "many_filtered": (work / "many", "?q=number+4999", "a.asked"),
        }
        figures = {
            name: medians([measure(root, path, settled, first=name == "many_first") for _ in range(asked.starts)])
            for name, (root, path, settled) in pages.items()
        }
    store(asked.result, figures, media_mb, asked.starts)


def store(to: Path, figures: dict[str, dict[str, float]], media_mb: float, starts: int) -> None:
    """Print a table, write the JSON."""
    print(f"{'page':<16}{'server':>18}{'browser':>18}{'page':>12}{'server':>12}{'browser':>12}")
    for name, one in figures.items():
        print(
            f"{name:<16}{one['server_s']:>7.3f} s ({one['server_cpu_s']:.2f})"
            f"{one['browser_s']:>9.3f} s ({one['browser_cpu_s']:.2f}){one['page_kb']:>9.0f} kB"
            f"{one['server_mb']:>9.0f} MB{one['browser_mb']:>9.0f} MB"
        )
    reached = {
        "long_listed_s": figures["long_listed"]["server_s"],
        "long_opens_s": figures["long_opens"]["browser_s"],
        "many_listed_s": figures["many_first"]["browser_s"],
        "memory_mb": max(max(one["server_mb"], one["browser_mb"]) for one in figures.values()),
    }
    for name, goal in GOALS.items():
        print(f"{name}: {reached[name]:.3f}, goal {goal:g}: {'reached' if reached[name] < goal else 'not reached'}")
    print(
        f"in brackets: processor seconds. {os.cpu_count()} cores; other work waiting for them: {os.getloadavg()[0]:.1f}"
    )
    told: dict[str, Any] = {
        "what": f"{EVENTS} events with {FRAMES} frames of {WIDTH}x{HEIGHT} ({media_mb:.0f} MB); {RUNS} runs",
        "figures": figures,
        "goals": GOALS,
        "reached": reached,
        "starts": starts,
        "load": os.getloadavg()[0],
        "niceness": os.nice(0),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
        "versions": {name: version(name) for name in ("starlette", "uvicorn", "jinja2", "pydantic")},
    }
    to.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
