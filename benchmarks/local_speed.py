"""Speed of the local engine: tokens per second, and time to the first token with and without the cached prefix.

Run ``python benchmarks/local_speed.py`` from the repository: prints a table and writes
``benchmarks/results/local_speed.json``. With ``--random`` it only prints, for the same shape with random weights.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from keyeloop.model_backend.base import Reply, Request, Sampling
from keyeloop.model_backend.keye.config import SpecialTokens
from keyeloop.model_backend.keye.cost import KEYE_TINY_LIMITS, KeyeVisualCost
from keyeloop.model_backend.keye.model import KeyeModel
from keyeloop.model_backend.keye.presets import keye_tiny
from keyeloop.model_backend.keye.tokenizer import KeyeTokenizer
from keyeloop.model_backend.local import folder
from keyeloop.model_backend.local.engine import LocalBackend
from keyeloop.runtime.content import Image, Message, Text, ToolSpec, Video
from keyeloop.runtime.evidence import Region, View
from keyeloop.runtime.media import MediaStore

RESULT = Path(__file__).resolve().parent / "results" / "local_speed.json"
CACHED_TOKENS, NEW_TEXT = 1500, "Error: there is no view 'f99'; known views: f1, f2, f3, f4, f5, f6, f7, f8"
CLIP_FRAMES, FRAME_WIDTH, FRAME_HEIGHT = 16, 252, 140
TOOLS = (
    ToolSpec(
        "zoom",
        "Look closer at a box of a view, cut from the source.",
        {
            "type": "object",
            "properties": {
                "view": {"type": "string"},
                "box": {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4},
            },
            "required": ["view", "box"],
        },
    ),
)


def random_backend(threads: int | None) -> LocalBackend:
    """The embedded model's shape with random weights."""
    file = Path(folder.__file__).resolve().parent.parent / "keye_tiny" / "tokenizer.json"
    tokenizer = KeyeTokenizer(file)
    names = ("image_pad", "video_pad", "vision_start", "vision_end")
    config = keye_tiny(tokenizer.size, SpecialTokens(*(tokenizer.id_of(f"<|{name}|>") for name in names)))
    torch.manual_seed(0)
    return LocalBackend("random", KeyeModel(config), file, KeyeVisualCost(KEYE_TINY_LIMITS), threads=threads)


def conversation(backend: LocalBackend, media: MediaStore) -> Request:
    """A question after a clip, filled up to just over the cached length."""
    random = np.random.default_rng(0)
    frames = []
    for number in range(CLIP_FRAMES):
        pixels = random.integers(0, 255, (FRAME_HEIGHT, FRAME_WIDTH, 3), dtype=np.uint8)
        view = View(f"f{number + 1}", "video-1", "0" * 64, 80.0 + number, Region(0, 0, FRAME_WIDTH, FRAME_HEIGHT))
        frames.append(Image(media.put_image(pixels), view))

    def request(filler: str) -> Request:
        looked = Message("user", (Video(tuple(frames)), Text(f"{filler}What number is on the board at 83 s?")))
        return Request((Message("system", (Text("You answer questions about videos. "),)), looked), TOOLS)

    missing = CACHED_TOKENS - backend.count_tokens(request("")).input_tokens
    return request("x" * max(0, missing))


async def timed(backend: LocalBackend, request: Request, media: MediaStore) -> tuple[Reply, float, float]:
    """A reply, its wall seconds and its CPU seconds."""
    wall, cpu = time.monotonic(), time.process_time()
    reply = await backend.generate(request, media)
    return reply, time.monotonic() - wall, time.process_time() - cpu


async def measure(backend: LocalBackend, media: MediaStore, repeats: int) -> dict[str, Any]:
    """All figures: medians over ``repeats``."""
    first = replace(conversation(backend, media), sampling=Sampling(max_tokens=16))
    reply = await backend.generate(first, media)
    turns = (*first.messages, reply.message, Message("tool", (Text(NEW_TEXT),), tool_call_id="call-1"))
    second = replace(first, messages=turns, sampling=Sampling(max_tokens=1))
    seconds: dict[str, list[float]] = {"cold_s": [], "warm_s": [], "cold_cpu_s": [], "warm_cpu_s": []}
    for _ in range(repeats):
        backend.forget()
        cold, _, cold_cpu_s = await timed(backend, second, media)
        backend.forget()
        await backend.generate(first, media)
        warm, _, warm_cpu_s = await timed(backend, second, media)
        assert cold.first_token_s is not None and warm.first_token_s is not None
        for name, value in zip(seconds, (cold.first_token_s, warm.first_token_s, cold_cpu_s, warm_cpu_s), strict=True):
            seconds[name].append(value)
    figures: dict[str, Any] = {name: statistics.median(values) for name, values in seconds.items()}
    figures |= {
        "cached_tokens": warm.usage.cached_tokens,
        "new_tokens": warm.usage.input_tokens - warm.usage.cached_tokens,
        "first_token_ratio": figures["cold_s"] / figures["warm_s"],
        "prefill_tokens_per_s": cold.usage.input_tokens / figures["cold_s"],
    }
    return figures | await decoding(backend, first, media, repeats)


async def decoding(backend: LocalBackend, request: Request, media: MediaStore, repeats: int) -> dict[str, Any]:
    """Tokens per second after the first, thinking, text and schema-held calls as they come."""
    rates, cpu_rates, tokens = [], [], 0
    for seed in range(repeats):
        sampled = replace(request, sampling=Sampling(temperature=1.0, seed=seed, max_tokens=200))
        reply, wall_s, cpu_s = await timed(backend, sampled, media)
        drawn = reply.usage.output_tokens - 1
        if drawn >= 8 and reply.first_token_s is not None:
            rates.append(drawn / (wall_s - reply.first_token_s))
            cpu_rates.append(drawn / cpu_s)
            tokens += drawn
    return {
        "decode_tokens_per_s": statistics.median(rates) if rates else None,
        "decode_tokens_per_cpu_s": statistics.median(cpu_rates) if cpu_rates else None,
        "decoded_tokens": tokens,
    }


def cpu_name() -> str:
    """The processor, as the system calls it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", default="keye-tiny")
    parser.add_argument("--random", action="store_true", help="random weights of the embedded model's shape")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    started = time.monotonic()
    if options.random:
        backend = random_backend(options.threads)
    else:
        backend = LocalBackend.load(options.model, device=options.device, threads=options.threads)
    load_s = time.monotonic() - started
    with tempfile.TemporaryDirectory() as scratch:
        figures = asyncio.run(measure(backend, MediaStore(Path(scratch)), options.repeats))
    result = {
        "model": backend.capabilities().model,
        "device": options.device,
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
        "repeats": options.repeats,
        "load_s": load_s,
        **figures,
    }
    for name, value in result.items():
        print(f"{name:>24}  {f'{value:.4g}' if isinstance(value, float) else value}")
    if options.random:
        return
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
