"""What a record costs: an event at any length, a run of a gigabyte listed and read, thousands of runs listed, bytes.

Writes a run of 10,000 events with 2,000 720p frames (noise, half a megabyte each), a folder of 5,000 small runs,
and one run that shows twenty 720p frames twenty times. Needs about 1.5 GB of disk while it runs.
Run ``python benchmarks/journal.py`` from the repository; writes ``benchmarks/results/journal.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from keyeloop.runtime.clock import SystemClock
from keyeloop.runtime.content import Image, Message, Text, ToolCall, Usage, Video
from keyeloop.runtime.events import ReplyReceived, RequestSent, RunEnded, RunStart, ToolCalled, ToolReturned
from keyeloop.runtime.evidence import Region, Source
from keyeloop.runtime.journal import Journal
from keyeloop.runtime.trajectory import list_runs
from keyeloop.runtime.views import ViewBook
from keyeloop.runtime.wire import parts_to_wire, to_wire

RESULT = Path(__file__).resolve().parent / "results" / "journal.json"
WIDTH, HEIGHT = 1280, 720
SHA = "ab" * 32
SOURCE = Source("video-1", "video", SHA, "/videos/hour.mp4", WIDTH, HEIGHT, 3600.0)
READ = """
import json, resource, sys, time
from pathlib import Path
from keyeloop.runtime.trajectory import Trajectory, summarise
folder = Path(sys.argv[1])
begun, begun_cpu = time.perf_counter(), time.process_time()
summarise(folder)
listed = time.perf_counter()
run = Trajectory.read(folder)
looks = len(run.looks)
read = time.perf_counter()
print(json.dumps({"list_s": listed - begun, "read_s": read - listed,
                  "list_and_read_cpu_s": time.process_time() - begun_cpu, "events": len(run.events), "looks": looks,
                  "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}))
"""


class Painter:
    """720p frames that no encoder makes small."""

    def __init__(self) -> None:
        self._chance = np.random.default_rng(1)
        self._noise = self._chance.integers(0, 24, (HEIGHT, WIDTH, 3), np.uint8)

    def frame(self, number: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Frame ``number``: the same for the same number."""
        return np.roll(self._noise, number * 7, axis=(0, 1)) + np.uint8(number % 120)


def start(name: str) -> RunStart:
    """How such a run begins."""
    opening = (to_wire(Message("system", (Text("s" * 2000),))), to_wire(Message("user", (Text("What?"),))))
    return RunStart(run_id=name, question="What?", model="m", inputs=(SOURCE,), messages=opening)


def write_long(folder: Path, turns: int, frames: int, frame: Callable[[int], Any]) -> list[float]:
    """A run of ``turns`` turns of five events that shows ``frames`` frames; CPU seconds of each append."""
    views, spent = ViewBook(), []
    with Journal.create(folder, SystemClock()) as journal:

        def append(event: Any) -> None:
            begun = time.thread_time()
            journal.append(event)
            spent.append(time.thread_time() - begun)

        append(start(folder.name))
        for turn in range(1, turns + 1):
            call = ToolCall(f"call-{turn}", "clip_video", {"video": "video-1", "start_s": turn, "end_s": turn + 1})
            append(RequestSent(turn=turn, messages=turn * 2, input_tokens=1000 + turn))
            message = Message("assistant", (Text("I look again."),), "so far " * 20, (call,), raw="so far " * 25)
            append(
                ReplyReceived(turn=turn, message=to_wire(message), usage=Usage(1000, 900, 90, 40), finish="tool_calls")
            )
            append(ToolCalled(turn=turn, call=call))
            shown = []
            if turn <= frames:
                view = views.frame("video-1", SHA, float(turn), Region(0, 0, WIDTH, HEIGHT))
                shown = [Image(journal.media.put_image(frame(turn)), view)]
            parts = parts_to_wire([Text("shown"), Video(tuple(shown))] if shown else [Text("nothing new")])
            append(ToolReturned(turn=turn, call_id=call.id, name="clip_video", parts=parts))
            append(RequestSent(turn=turn, messages=turn * 2, input_tokens=1000 + turn))
        append(RunEnded(status="answered", answer="417 [f1]"))
    return spent


def size_of(folder: Path) -> int:
    """Bytes on disk, links once, folders not counted."""
    found = {path.stat().st_ino: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    return sum(found.values())


def twenty_times(folder: Path, painter: Painter) -> dict[str, float]:
    """Twenty 720p frames, each shown in twenty results, against the frames once."""
    views = ViewBook()
    with Journal.create(folder / "run", SystemClock()) as journal:
        journal.append(start("run"))
        for time_number in range(20):
            shown = []
            for number in range(20):
                view = views.frame("video-1", SHA, float(number), Region(0, 0, WIDTH, HEIGHT))
                shown.append(Image(journal.media.put_image(smooth(painter, number)), view))
            parts = parts_to_wire([Video(tuple(shown))])
            journal.append(ToolReturned(turn=time_number + 1, call_id="c", name="clip_video", parts=parts))
        journal.append(RunEnded(status="answered", answer="4"))
    once = sum(path.stat().st_size for path in (folder / "run" / "media").rglob("*") if path.is_file())
    return {"frames_once_bytes": once, "run_bytes": size_of(folder), "ratio": size_of(folder) / once}


def smooth(painter: Painter, number: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A frame that an encoder makes as small as one of a real video."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    waves = (np.sin(columns / (23 + number)) + np.sin(rows / (17 + number))) * 50 + 110
    return (
        np.stack([waves, np.roll(waves, 31, 1), np.roll(waves, 57, 0)], axis=2) + painter.frame(number) / 12
    ).astype(np.uint8)


def many(folder: Path, count: int) -> dict[str, float]:
    """Seconds to list ``count`` runs of twelve events, three times."""
    write_long(folder / "run-0", 2, 0, lambda _: None)
    line = (folder / "run-0" / "journal.jsonl").read_bytes()
    for number in range(1, count):
        (folder / f"run-{number}").mkdir()
        (folder / f"run-{number}" / "journal.jsonl").write_bytes(line)
    taken, spent = [], []
    for _ in range(3):
        begun, begun_cpu = time.perf_counter(), time.process_time()
        found = list_runs(folder)
        taken.append(time.perf_counter() - begun)
        spent.append(time.process_time() - begun_cpu)
        assert len(found) == count and not any(run.problem for run in found)
    return {"runs": count, "list_s": statistics.median(taken), "list_cpu_s": statistics.median(spent)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--turns", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=asked.folder, prefix="keyeloop-journal-"))
    try:
        painter = Painter()
        spent = write_long(folder / "long" / "run", asked.turns, asked.frames, painter.frame)
        tenth = len(spent) // 10
        read = subprocess.run(
            [sys.executable, "-c", READ, str(folder / "long" / "run")], capture_output=True, text=True, check=True
        )
        long = json.loads(read.stdout)
        files = list((folder / "long" / "run").glob("journal*.jsonl"))
        made: dict[str, Any] = {
            "append": {
                "first_tenth_cpu_ms": statistics.mean(spent[:tenth]) * 1e3,
                "last_tenth_cpu_ms": statistics.mean(spent[-tenth:]) * 1e3,
                "p99_cpu_ms": sorted(spent)[int(len(spent) * 0.99)] * 1e3,
            },
            "long_run": {
                **long,
                "media_mb": size_of(folder / "long" / "run" / "media") / 1e6,
                "record_mb": sum(path.stat().st_size for path in files) / 1e6,
                "files": len(files),
            },
            "twenty_frames_twenty_times": twenty_times(folder / "twenty", painter),
            "many_runs": many(folder / "many", asked.runs),
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    made["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    made["date"] = datetime.now(UTC).date().isoformat()
    made["peak_mib_of_writer"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(made, indent=1))
    RESULT.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
