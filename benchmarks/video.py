"""Frames and clips of an hour of video: our decoder beside other libraries, in one run.

Makes an hour of 1280 x 720 (H.264, 25 a second, B-frames, a key frame every ten seconds, its frame number in a bar
code) from forty seconds whose packets are repeated, then measures every library in a process of its own:

- ``random``: single frames all over the hour; ``dense``: 64 frames within 10 s; ``hour``: 512 frames spread over it
  (``--hour-frames 128`` takes every fourth of them); all as RGB of 448 x 252;
- ``clip``: a file of 10 s.

A frame is right when its bar code is that of the moment. Memory is the peak of all processes of a library together.
Run ``python benchmarks/video.py``; libraries that are not installed are left out. Writes
``benchmarks/results/video.json``; with ``--only ROW`` or ``--library NAME`` what else is in it stays as it is.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src"), str(ROOT / "benchmarks")]
RESULT = ROOT / "benchmarks" / "results" / "video.json"
PIECE_FRAMES, REPEATS, FPS = 1000, 90, 25
ROWS = ("random", "dense", "hour", "clip")
NEVER_S = 900


def make_hour(folder: Path) -> Path:
    """The file that everything is measured on."""
    import av
    import numpy as np

    from tests.tools.moving_pictures import bar_code

    noise = np.random.default_rng(1).integers(0, 40, (784, 1344, 3), np.uint8)
    piece, hour = folder / "piece.mp4", folder / "hour.mp4"
    with av.open(str(piece), "w") as file:
        options = {"preset": "veryfast", "g": "250", "bf": "3", "crf": "26", "x264-params": "scenecut=0:b-adapt=0"}
        stream: Any = file.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        for number in range(PIECE_FRAMES):
            picture = noise[number % 64 : number % 64 + 720, number * 3 % 64 : number * 3 % 64 + 1280].copy()
            picture[200:520] = bar_code(number, 1280, 320)
            picture[560:700, number * 7 % 1000 :][:, :200] = (number % 255, 200, 80)
            frame = av.VideoFrame.from_ndarray(picture)
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    with av.open(str(piece)) as source, av.open(str(hour), "w") as out:
        stream = source.streams.video[0]
        track = out.add_stream_from_template(stream)
        packets = [
            (one.pts, one.dts, one.duration, bytes(one), one.is_keyframe) for one in source.demux(stream) if one.size
        ]
        span = round(Fraction(PIECE_FRAMES, FPS) / stream.time_base)
        for number in range(REPEATS):
            for pts, dts, duration, data, is_key in packets:
                packet: Any = av.Packet(data)
                packet.pts, packet.dts, packet.duration = pts + number * span, dts + number * span, duration
                packet.time_base, packet.stream, packet.is_keyframe = stream.time_base, track, is_key
                out.mux(packet)
    return hour


def work(path: Path, library: str, row: str, hour_frames: int) -> dict[str, Any]:
    """One row of one library: seconds by the wall, of processor, of opening; how many frames were wrong; memory."""
    import video_libraries

    began, spent = time.perf_counter(), _cpu_s()
    subject = video_libraries.LIBRARIES[library](path)
    opened_s, opened_cpu_s = time.perf_counter() - began, _cpu_s(subject) - spent
    rng, walls, wrong, count = random.Random(7), [], 0, 0
    tasks: list[list[float]] = {
        "random": lambda: [[rng.uniform(0, 3599)] for _ in range(24)],
        "dense": lambda: [[start + 10 * step / 63 for step in range(64)] for start in (100.0, 1234.5, 3000.1)],
        "hour": lambda: [[3599.9 * step / 511 for step in range(0, 512, 512 // hour_frames)]],
        "clip": lambda: [[start] for start in (113.3, 1233.02, 2999.9)],
    }[row]()
    spent, clips = _cpu_s(subject), dict[Path, float]()
    with tempfile.TemporaryDirectory() as folder:
        for place, times in enumerate(tasks):
            began = time.perf_counter()
            if row == "clip":
                out = Path(folder) / f"{place}.mp4"
                if not subject.clip(times[0], times[0] + 10, out):
                    return {}
                walls.append(time.perf_counter() - began)
                clips[out] = times[0]
            else:
                shown = subject.read(times, _number)
                walls.append(time.perf_counter() - began)
                told_s = getattr(subject, "shown_s", times) if library.endswith("key frames") else times
                wrong += _wrong(shown, told_s)
                count += len(shown)
        cpu_s, memory_mb = (_cpu_s(subject) - spent) / len(tasks), _memory_mb(subject)
        wrong += sum(not _exact_clip(path, start_s) for path, start_s in clips.items())
    told = {
        "version": subject.version,
        "open_s": opened_s,
        "open_cpu_s": opened_cpu_s,
        "wall_s": statistics.median(walls),
    }
    return {**told, "cpu_s": cpu_s, "wrong": wrong, "of": count + len(clips), "memory_mb": memory_mb}


def _wrong(shown: list[int], times_s: list[float]) -> int:
    return sum(number != int(at * FPS + 1e-4) % PIECE_FRAMES for number, at in zip(shown, times_s, strict=True))


def _number(pixels: Any) -> int:
    """What ``bar_code`` drew: ten stripes, the most significant bit on the left."""
    height, width = pixels.shape[:2]
    line = pixels[height * 5 // 12 : height * 7 // 12, width // 20 :: width // 10].mean(axis=(0, 2)) > 127
    return int("".join("1" if bit else "0" for bit in line[:10]), 2)


def _exact_clip(path: Path, start_s: float) -> bool:
    """Whether a clip shows the frames of its ten seconds and no other, to a player that follows edit lists."""
    import av

    with av.open(str(path)) as file:
        shown = [_number(frame.to_ndarray(format="rgb24")) for frame in file.decode(video=0)]
    first, last = int(start_s * FPS + 1e-4), math.ceil((start_s + 10) * FPS - 1e-4)
    return shown == [number % PIECE_FRAMES for number in range(first, last)]


def _child_pid(subject: Any) -> int | None:
    decoder = getattr(subject, "decoder", None)
    return None if decoder is None else decoder.pid


def _cpu_s(subject: Any = None) -> float:
    own, ended = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    total = own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime
    pid = _child_pid(subject)
    if pid is not None:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def _memory_mb(subject: Any) -> dict[str, int]:
    own = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) >> 10
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
    pid = _child_pid(subject)
    if pid is not None:
        status = Path(f"/proc/{pid}/status").read_text()
        child = int(status.split("VmHWM:")[1].split()[0]) >> 10
    return {"python": own, "decoding child": child}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=ROWS, action="append", help="only this row; may be repeated")
    parser.add_argument("--library", action="append", help="only this library; may be repeated")
    parser.add_argument("--hour-frames", type=int, default=512, help="of the row hour, for those that seek each")
    parser.add_argument("--work", nargs=3, metavar=("FILE", "LIBRARY", "ROW"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.work:
        print(json.dumps(work(Path(chosen.work[0]), chosen.work[1], chosen.work[2], chosen.hour_frames)))
        return
    import video_libraries

    partly = (chosen.only or chosen.library) and RESULT.exists()
    found: dict[str, Any] = json.loads(RESULT.read_text())["rows"] if partly else {}
    with tempfile.TemporaryDirectory(prefix="keyeloop-video-") as folder:
        hour = make_hour(Path(folder))
        for row in chosen.only or ROWS:
            for library in chosen.library or video_libraries.LIBRARIES:
                if row != {"keyeloop, key frames": "hour", "ffmpeg, encoding": "clip"}.get(library, row):
                    continue
                command = [sys.executable, __file__, "--work", str(hour), library, row]
                command += ["--hour-frames", "512" if library.endswith("key frames") else str(chosen.hour_frames)]
                try:
                    done = subprocess.run(command, capture_output=True, text=True, timeout=NEVER_S, check=True)
                    result = json.loads(done.stdout.splitlines()[-1])
                except subprocess.TimeoutExpired:
                    result = {"failed": f"not done in {NEVER_S} s"}
                except subprocess.CalledProcessError as error:
                    result = {"failed": error.stderr.strip().splitlines()[-1][:100]}
                if result:
                    result |= {"when": datetime.now(UTC).isoformat(timespec="seconds"), "load": os.getloadavg()[0]}
                found.setdefault(row, {})[library] = result
                _tell(row, library, result)
        size_mb = hour.stat().st_size >> 20
    machine = {
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "file_mb": size_mb,
    }
    RESULT.write_text(
        json.dumps({"when": datetime.now(UTC).isoformat(), "machine": machine, "rows": found}, indent=1) + "\n"
    )


def _tell(row: str, library: str, result: dict[str, Any]) -> None:
    if "wall_s" not in result:
        print(f"{row:7} {library:22} {result.get('failed', 'does not do it')}", flush=True)
        return
    memory = result["memory_mb"]
    print(
        f"{row:7} {library:22} {result['wall_s']:8.3f} s wall {result['cpu_s']:8.3f} s cpu "
        f"(open {result['open_s']:.2f} s) wrong {result['wrong']}/{result['of']} "
        f"memory {memory['python']} + {memory['decoding child']} MB  {result['version']}",
        flush=True,
    )


if __name__ == "__main__":
    main()
