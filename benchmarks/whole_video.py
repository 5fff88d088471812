"""The whole hour: seconds of a plan, processor time and memory of 512 exact frames, planned against real tokens.

Renders a 720p board video of a minute, repeats its packets sixty times for the hour (no second encoding), plans it in a
fresh process, and runs ``Agent.run(watch="whole")`` with a scripted model of Keye's arithmetic and 256K context. Beside
it the ffmpeg command and decord, one thread each, take the same frames at the same size and throw them away; a row says
why where one of them is missing. Times are checked against the packets.

Run ``python benchmarks/whole_video.py`` from the repository; writes ``benchmarks/results/whole_video.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from bisect import bisect_right
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import av
import cv2

sys.path.insert(0, str(Path(__file__).resolve().parent))
from hour_video import MINUTE_S, REPEATS, _processor, repeat

from keyeloop.tools.demo_video.record import record

RESULT = Path(__file__).resolve().parent / "results" / "whole_video.json"
MAX_PLAN_S, MAX_MEMORY_MB = 2.0, 500
CONTEXT_TOKENS = 262_144
MODEL = f"""
import asyncio, json, sys
from keyeloop import Agent
from keyeloop.model_backend.keye.cost import KEYE_2_LIMITS, KeyeVisualCost
from keyeloop.model_backend.scripted import ScriptedBackend
model = ScriptedBackend(["seen [f1]"], cost=KeyeVisualCost(KEYE_2_LIMITS), context_tokens={CONTEXT_TOKENS})
agent, video, runs = Agent(model, [], runs=sys.argv[2]), sys.argv[1], sys.argv[2]
"""
PLAN = MODEL + 'print(json.dumps(asyncio.run(agent.plan("What is shown?", video=video, watch="whole")).to_json()))'
RUN = (
    MODEL
    + """
answer = agent.run_sync("What is shown?", video=video, watch="whole")
clip = model.requests[0].messages[1].parts[1]
real = model.count_tokens(model.requests[0])
print(json.dumps({"times_s": clip.times_s, "input_tokens": real.input_tokens, "visual_tokens": real.visual_tokens,
                  "stored_bytes": sum(frame.media.size_bytes for frame in clip.frames)}))
"""
)
DECORD = """
import json, sys
import decord
reader = decord.VideoReader(sys.argv[1], width=int(sys.argv[3]), height=int(sys.argv[4]), num_threads=1)
size = int(sys.argv[4]), int(sys.argv[3]), 3
print(sum(reader[index].asnumpy().shape == size for index in json.loads(sys.argv[2])))
"""


def measure(command: list[str], env: dict[str, str] | None = None) -> dict[str, Any]:
    """Run a command: wall and processor seconds, peak memory (the sum of it and its children, sampled), its output."""
    before, began, peak = os.times(), time.monotonic(), 0
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env)
    over = threading.Event()

    def sample() -> None:
        nonlocal peak
        while not over.wait(0.05):
            peak = max(peak, sum(map(_resident_bytes, _family(process.pid))))

    sampler = threading.Thread(target=sample)
    sampler.start()
    output, _ = process.communicate()
    over.set()
    sampler.join()
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    if process.returncode:
        raise SystemExit(f"{command[0]} failed with {process.returncode}")
    wall = time.monotonic() - began
    return {"wall_s": round(wall, 2), "cpu_s": round(cpu, 2), "peak_mb": round(peak / 1e6), "output": output}


def _family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                found += map(int, task.read_text().split())
            except OSError:
                continue
    return found


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def packet_times_s(path: Path) -> list[float]:
    """Presentation times of all frames from the packets, ascending, from the first."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        assert stream.time_base is not None
        ticks = sorted(packet.pts for packet in file.demux(stream) if packet.pts is not None)
        return [float((one - ticks[0]) * stream.time_base) for one in ticks]


def main() -> int:
    """Render, plan, run, compare, print a table and store it; 1 where a bound is missed."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--video", type=Path, help="an hour of your own instead of the rendered one")
    given, load_before = options.parse_args(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        env = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
        hour = given.video or folder / "hour.mp4"
        if given.video is None:
            record(folder / "minute.mp4", given.seed, duration_s=MINUTE_S)
            repeat(folder / "minute.mp4", hour, REPEATS)
        runs = str(folder / "runs")
        planning = measure([sys.executable, "-c", PLAN, str(hour), runs], env)
        watching = measure([sys.executable, "-c", RUN, str(hour), runs], env)
        plan, real = json.loads(planning.pop("output")), json.loads(watching.pop("output"))
        video = plan["videos"][0]
        every = packet_times_s(hour)
        indices = [bisect_right(every, time_s + 1e-6) - 1 for time_s in video["times_s"]]
        rows = {"plan": planning, "keyeloop": {**watching, "frames": len(real["times_s"])},
                "ffmpeg": by_ffmpeg(hour, indices, video), "decord": by_decord(hour, indices, video, env)}  # fmt: skip
        exact = [round(every[index], 6) for index in indices] == [round(one, 6) for one in real["times_s"]]
        size_bytes = hour.stat().st_size
    checks = {
        "plan_within_2_s": planning["wall_s"] <= MAX_PLAN_S,
        "every_frame_at_its_planned_time": exact and len(real["times_s"]) == video["frames"],
        "memory_within_500_mb": watching["peak_mb"] <= MAX_MEMORY_MB,
        "tokens_as_planned": all(plan[kind] == real[kind] for kind in ("input_tokens", "visual_tokens")),
    }
    table = {
        "what": "an hour of 720p watched whole; processor seconds of all processes, hashing, JPEG and start included",
        "rows": rows,
        "checks": checks,
        "video": {"bytes": size_bytes, "frames_in_file": len(every), "frames_shown": video["frames"],
                  "size": [video["width"], video["height"]], "stored_bytes": real["stored_bytes"]},
        "tokens": {"planned": plan["input_tokens"], "real": real["input_tokens"], "visual": real["visual_tokens"]},
        "seed": given.seed,
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "load_before": round(load_before, 2)},
        "versions": {"python": platform.python_version(), "av": av.__version__, "opencv": cv2.__version__},
        "date": datetime.now(UTC).date().isoformat(),
    }  # fmt: skip
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(table, indent=1) + "\n")
    for who, row in rows.items():
        told = row if isinstance(row, str) else "{cpu_s:8.2f} CPU-s  {wall_s:8.2f} s  {peak_mb:5} MB".format(**row)
        print(f"{who:9} {told}")
    print(f"tokens    {plan['input_tokens']:,} planned, {real['input_tokens']:,} real; load {load_before:.1f} before")
    for check, held in checks.items():
        print(f"{'yes' if held else 'NO':9} {check.replace('_', ' ')}")
    return 0 if all(checks.values()) else 1


def by_ffmpeg(hour: Path, indices: list[int], video: dict[str, Any]) -> dict[str, Any] | str:
    """The frames of these numbers by the ffmpeg command in one pass, or why it took none."""
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        return "skipped: no ffmpeg command (apt-get install ffmpeg)"
    script, progress = hour.parent / "select.txt", hour.parent / "progress.txt"
    script.write_text(f"select={_among(indices)},scale={video['width']}:{video['height']}:flags=area")
    command = [ffmpeg, "-v", "error", "-threads", "1", "-i", str(hour), "-filter_script:v", str(script), "-vsync", "0"]
    command += ["-progress", str(progress), "-f", "rawvideo", "-pix_fmt", "rgb24", "-y", os.devnull]
    row = measure(command)
    del row["output"]
    told = subprocess.run([ffmpeg, "-version"], capture_output=True, text=True, check=True).stdout
    frames = [int(line.removeprefix("frame=")) for line in progress.read_text().split() if line.startswith("frame=")]
    return {**row, "frames": frames[-1], "version": told.split()[2]}


def by_decord(hour: Path, indices: list[int], video: dict[str, Any], env: dict[str, str]) -> dict[str, Any] | str:
    """The frames of these numbers by decord, each sought by its number, or why it took none."""
    asked = [sys.executable, "-c", "import decord; print(decord.__version__)"]
    version = subprocess.run(asked, capture_output=True, text=True, check=False)
    if version.returncode:
        return f"skipped: {version.stderr.strip().splitlines()[-1]} (pip install decord)"
    wanted = [str(hour), json.dumps(indices), str(video["width"]), str(video["height"])]
    row = measure([sys.executable, "-c", DECORD, *wanted], env)
    row["frames"] = int(row.pop("output"))
    return {**row, "version": version.stdout.strip()}


def _among(indices: list[int]) -> str:
    """ffmpeg's expression for whether frame ``n`` is one of ``indices``: a search tree, which costs little."""
    if len(indices) == 1:
        return f"eq(n\\,{indices[0]})"
    middle = len(indices) // 2
    return f"if(lt(n\\,{indices[middle]})\\,{_among(indices[:middle])}\\,{_among(indices[middle:])})"


if __name__ == "__main__":
    raise SystemExit(main())
