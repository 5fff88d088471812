"""Processor time of looking into a one-minute and a one-hour video: the same, or looking does not scale.

Renders a 720p board video of a minute, repeats its packets sixty times for the hour (no second encoding), then runs
``open_source``, ``clip_video`` and ``zoom`` on both at the same moments of the minute, the files already hashed.
Run ``python benchmarks/hour_video.py`` from the repository; writes ``benchmarks/results/hour_video.json``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import resource
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import av
import cv2

from keyeloop.model_backend.keye.cost import KEYE_TINY_LIMITS, KeyeVisualCost
from keyeloop.runtime.content import Video
from keyeloop.runtime.media import MediaStore
from keyeloop.runtime.source import hash_file
from keyeloop.runtime.views import ViewBook
from keyeloop.tools.base import ToolContext
from keyeloop.tools.demo_video.record import record
from keyeloop.tools.video.clip import ClipVideo
from keyeloop.tools.video.decoder import Decoder
from keyeloop.tools.video.frames import STATE_KEY
from keyeloop.tools.video.probe import open_source
from keyeloop.tools.video.zoom import Zoom

RESULT = Path(__file__).resolve().parent / "results" / "hour_video.json"
MINUTE_S, REPEATS = 60, 60
MAX_RATIO = 1.25
VISUAL_BUDGET_TOKENS = 1024


def repeat(minute: Path, hour: Path, times: int) -> None:
    """Write the packets of ``minute`` one after the other ``times`` times."""
    with av.open(str(hour), "w") as target:
        written = None
        for number in range(times):
            with av.open(str(minute)) as source:
                stream = source.streams.video[0]
                assert stream.time_base is not None
                shift = round(number * MINUTE_S / stream.time_base)
                written = written or target.add_stream_from_template(stream)
                for packet in source.demux(stream):
                    if packet.dts is None or packet.pts is None:
                        continue
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, written
                    target.mux(packet)


def cpu_s() -> float:
    """Processor seconds of this process and its ended children."""
    usages = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


async def look(path: Path, moment_s: float, folder: Path) -> dict[str, float]:
    """One fresh decoder: examine the file, look at four frames from ``moment_s`` on, zoom into the second."""
    before, began = cpu_s(), time.monotonic()
    decoder = Decoder()
    source = open_source(path, "video-1", decoder=decoder)
    context = ToolContext(
        {"video-1": source},
        MediaStore(folder / "media"),
        ViewBook(),
        KeyeVisualCost(KEYE_TINY_LIMITS),
        VISUAL_BUDGET_TOKENS,
        state={STATE_KEY: decoder},
    )
    clip, zoom = ClipVideo(), Zoom()
    span = {"video": "video-1", "start_s": moment_s, "end_s": moment_s + 3}
    _, video = await clip.call(span, context)
    assert isinstance(video, Video) and len(video.frames) == 4
    await zoom.call({"view": "f2", "box": [300, 200, 700, 600]}, context)
    await clip.close(context)
    return {"cpu_s": cpu_s() - before, "wall_s": time.monotonic() - began}


def measure(path: Path, moments_s: list[float], folder: Path) -> dict[str, Any]:
    """Medians over looks at ``moments_s``, and the bytes that all of them stored."""
    asyncio.run(look(path, moments_s[0], folder / "warm"))
    runs = [asyncio.run(look(path, moment_s, folder)) for moment_s in moments_s]
    stored = sum(file.stat().st_size for file in (folder / "media").rglob("*") if file.is_file())
    return {
        "file_bytes": path.stat().st_size,
        "cpu_s": round(statistics.median(run["cpu_s"] for run in runs), 3),
        "wall_s": round(statistics.median(run["wall_s"] for run in runs), 3),
        "cpu_s_of_each": [round(run["cpu_s"], 3) for run in runs],
        "stored_bytes_a_look": round(stored / len(runs)),
    }


def main() -> int:
    """Render, measure, print a table and store it; 1 when the hour costs over 25 % more or less than the minute."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--looks", type=int, default=9, help="moments looked at in each video (default 9)")
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        minute, hour = folder / "minute.mp4", folder / "hour.mp4"
        record(minute, given.seed, duration_s=MINUTE_S)
        repeat(minute, hour, REPEATS)
        for path in (minute, hour):
            os.utime(path, (time.time() - 60,) * 2)  # settled, so that its hash is remembered
            hash_file(path)
        moments = [rng.uniform(1, MINUTE_S - 5) for _ in range(given.looks)]
        late = [moment + MINUTE_S * rng.randrange(REPEATS // 2, REPEATS) for moment in moments]
        results = {
            "minute": measure(minute, moments, folder / "of_minute"),
            "hour": measure(hour, late, folder / "of_hour"),
        }
    ratio = results["hour"]["cpu_s"] / results["minute"]["cpu_s"]
    passed = 1 / MAX_RATIO <= ratio <= MAX_RATIO
    table = {
        "what": "open_source + clip_video (4 frames over 3 s) + zoom, fresh decoder, file already hashed; medians",
        "results": results,
        "hour_over_minute": round(ratio, 3),
        "within_25_percent": passed,
        "looks": given.looks,
        "seed": given.seed,
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "load": os.getloadavg()[0]},
        "versions": {"python": platform.python_version(), "av": av.__version__, "opencv": cv2.__version__},
        "date": datetime.now(UTC).date().isoformat(),
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(table, indent=1) + "\n")
    for length, row in results.items():
        print(
            f"{length:7} {row['file_bytes'] / 1e6:8.1f} MB  {row['cpu_s']:.3f} CPU-s  {row['wall_s']:.3f} s  "
            f"{row['stored_bytes_a_look'] / 1e3:.0f} kB stored a look"
        )
    print(f"hour / minute: {ratio:.3f} ({'within' if passed else 'NOT within'} 25 %)")
    return 0 if passed else 1


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    raise SystemExit(main())
