"""An hour of video in one pass: from the file to the first token, cold, and a second question, warm.

    python benchmarks/serving/hour.py --model MODELS/full --out OUT --seconds 240

Some minutes of 720p board video are rendered and joined, over and over, to an hour (not counted); frames are taken at
instants that all differ in them. Then, as a run with
``watch="whole"`` does it, but with more frames: the file is opened and planned, frames are decoded, resized and stored
as JPEG, one request with one clip goes to the server by reference into the shared store, and its first token comes
back. The split: decode (with opening and storing), the server's loading of pictures and laying out (its own log), its
vision tower (device events), the prefill of as many text tokens (asked apart), and what is left: sending, hashing,
moving pixels between processes. Needs ``av``.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
from record import Record, Row, show
from servers import Serving, random_ids, serving

from keyeloop.model_backend.base import Reply, Request, Sampling
from keyeloop.model_backend.keye.config import KeyeConfig
from keyeloop.model_backend.keye.cost import KeyeVisualCost
from keyeloop.model_backend.local.counter import limits_of
from keyeloop.model_backend.sglang.native.backend import SGLangNative
from keyeloop.model_backend.sglang.plugin.media.store import STORE_VARIABLE
from keyeloop.runtime.content import Message, Text
from keyeloop.runtime.evidence import Source
from keyeloop.runtime.media import MediaStore
from keyeloop.runtime.views import ViewBook
from keyeloop.tools.demo_video.record import record as record_video
from keyeloop.tools.video.decoder import Decoder
from keyeloop.tools.video.probe import examine
from keyeloop.tools.video.readers import readers_for
from keyeloop.tools.video.schedule import Film, Pace, schedule
from keyeloop.tools.video.whole import Stored, show_frames, watch_frames

MINUTE_S, HOUR_MINUTES, RENDERED_MINUTES = 60, 60, 15
VISUAL_TOKENS, TEXT_TOKENS_A_FRAME = 173_000, 16
QUESTIONS = ("What is shown in this hour?", "And what comes after that?")
_LOADED = re.compile(r"(\d+) pictures loaded in ([\d.]+) s, (\d+) tokens laid out in ([\d.]+) s")


@dataclass(frozen=True)
class Taken:
    """Frames of the hour, and what it took to have them."""

    source: Source
    frames: tuple[Stored, ...]
    tokens_each: int
    row: Row


def render(seed: int, path: Path) -> Path:
    """A minute of board video."""
    record_video(path, seed, duration_s=MINUTE_S)
    return path


def join(minutes: list[Path], hour: Path, times: int) -> None:
    """Write the packets of ``times`` minutes one behind the other, beginning again where ``minutes`` end."""
    with av.open(str(hour), "w") as target:
        written, last = None, -1
        for number in range(times):
            with av.open(str(minutes[number % len(minutes)])) as source:
                stream = source.streams.video[0]
                assert stream.time_base is not None
                written = written or target.add_stream_from_template(stream)
                shift = None
                for packet in source.demux(stream):
                    if packet.dts is None or packet.pts is None:
                        continue
                    if shift is None:
                        shift = max(round(number * MINUTE_S / stream.time_base), last + 1 - packet.dts)
                    last = packet.dts + shift
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, last, written
                    target.mux(packet)


async def take(path: Path, media: MediaStore, model: Path, visual_tokens: int) -> Taken:
    """Open, plan and decode; the file is hashed meanwhile, as in a run."""
    began_s = time.monotonic()
    with Decoder() as decoder:
        examined = examine(path, "video-1", decoder)
        facts, unhashed = examined.facts, examined._replace(hashing=None).source()
        cost = KeyeVisualCost(limits_of(KeyeConfig.from_folder(model)))
        film = Film(facts.duration_s or 0.0, facts.fps, facts.width, facts.height)
        count = visual_tokens // cost.frame(film.width, film.height).tokens
        plan = schedule(
            film, Pace(most_frames=count), visual_tokens + TEXT_TOKENS_A_FRAME * count, cost, TEXT_TOKENS_A_FRAME
        )
        planned_s = time.monotonic()
        size = (plan.size.width, plan.size.height)
        frames = await watch_frames(unhashed, plan.moments_s, size, decoder, media, lambda done: None)
    decoded_s = time.monotonic()
    source = await asyncio.to_thread(examined.source)
    readers = readers_for(unhashed, len(plan.moments_s))
    row: Row = {"readers": readers, "open_and_plan_s": planned_s - began_s, "decode_and_store_s": decoded_s - planned_s,
                "hash_wait_s": time.monotonic() - decoded_s}  # fmt: skip
    return Taken(source, frames, plan.each_tokens, row)


def state(server: Serving) -> tuple[Row, list[tuple[str, ...]]]:
    """The vision tower's counts, and what the log says of loading so far."""
    counts: Row = (server.info().get("keyeloop") or {}).get("pictures_encoded") or {}
    return counts, _LOADED.findall(server.log.read_text(errors="replace"))


async def ask(backend: SGLangNative, server: Serving, messages: list[Message], media: MediaStore) -> tuple[Reply, Row]:
    """One turn, and how long the parts of it took."""
    before, lines = state(server)
    began_s = time.monotonic()
    reply = await backend.generate(Request(tuple(messages), sampling=Sampling(max_tokens=8)), media)
    first_s = reply.first_token_s or time.monotonic() - began_s
    after, told = state(server)
    loaded = told[len(lines) :]
    row: Row = {
        "first_token_s": first_s, "input_tokens": reply.usage.input_tokens, "cached_tokens": reply.usage.cached_tokens,
        "load_s": sum(float(one[1]) for one in loaded), "lay_out_s": sum(float(one[3]) for one in loaded),
        "vision_s": after.get("device_s", 0.0) - before.get("device_s", 0.0),
        "pictures_encoded": after.get("pictures", 0) - before.get("pictures", 0),
    }  # fmt: skip
    return reply, row


async def watch(record: Record, server: Serving, video: Path, given: argparse.Namespace) -> list[Row]:
    """Warm the server up with other content, then the hour, twice asked."""
    media = MediaStore(given.out / "store")
    warm = MediaStore(given.out / "store")
    name = f"sglang://{server.url.removeprefix('http://')}#{given.model}"
    backend = SGLangNative(name)
    server.stream(random_ids(given.warm_tokens, 5), 8)
    other = await take(given.out / "minute-0.mp4", warm, given.model, max(2000, given.visual_tokens // 60))
    shown = show_frames(other.source, other.frames, ViewBook())
    await backend.generate(Request((Message("user", (shown, Text("?"))),), sampling=Sampling(max_tokens=4)), warm)
    server.forget()
    record.say("server warm, the hour begins")
    began_s = time.monotonic()
    taken = await take(video, media, given.model, given.visual_tokens)
    record.say(f"{len(taken.frames)} frames: {taken.row}")
    clip = show_frames(taken.source, taken.frames, ViewBook())
    messages = [Message("user", (clip, Text(QUESTIONS[0])))]
    reply, row = await ask(backend, server, messages, media)
    visual = len(taken.frames) * taken.tokens_each
    cold: Row = {"what": "cold", "file_to_first_token_s": time.monotonic() - began_s, "frames": len(taken.frames),
                 "visual_tokens": visual, **taken.row, **row}  # fmt: skip
    record.put("cold", cold)
    record.say(f"cold: {cold}")
    messages += [reply.message, Message("user", (Text(QUESTIONS[1]),))]
    _, second = await ask(backend, server, messages, media)
    record.put("second question", second)
    record.say(f"second question: {second}")
    server.forget()
    text = server.stream(random_ids(min(int(row["input_tokens"]), given.context - 64), 6), 2)
    record.put("text of the same length", text.first_s)
    cold["text_prefill_s"] = text.first_s
    cold["rest_s"] = row["first_token_s"] - row["load_s"] - row["lay_out_s"] - row["vision_s"] - text.first_s
    record.put("cold", cold)
    _, again = await ask(backend, server, messages[:1], media)
    record.put("same hour, prefix forgotten", again)
    await backend.close()
    return [cold, {"what": "second question", **second}, {"what": "prefix forgotten, pixels kept", **again}]


def main() -> int:
    """Render, serve, watch, print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", type=Path, required=True)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--seconds", type=float, default=300)
    options.add_argument("--visual-tokens", type=int, default=VISUAL_TOKENS)
    options.add_argument("--warm-tokens", type=int, default=32768)
    options.add_argument("--context", type=int, default=262_144)
    options.add_argument("--minutes", type=int, default=HOUR_MINUTES, help="length of the video")
    options.add_argument("--rendered", type=int, default=RENDERED_MINUTES, help="different minutes in it")
    options.add_argument("--flags", default="", help="more flags for SGLang, in one string")
    options.add_argument("--cpu", action="store_true")
    given = options.parse_args()
    given.model = given.model.resolve()
    record = Record(given.out / "hour.json", given.seconds, model=given.model.name, visual_tokens=given.visual_tokens)
    (given.out / "store").mkdir(parents=True, exist_ok=True)
    hour = given.out / "hour.mp4"
    with ProcessPoolExecutor() as pool:
        names = [given.out / f"minute-{number}.mp4" for number in range(given.rendered)]
        join(list(pool.map(render, range(1, given.rendered + 1), names)), hour, given.minutes)
    record.say(f"{hour}: {hour.stat().st_size / 1e6:.0f} MB")
    flags = ["--context-length", str(given.context), "--cuda-graph-max-bs-decode", "4", *given.flags.split()]
    environment: dict[str, Any] = {
        STORE_VARIABLE: str((given.out / "store").resolve()),
        "SGLANG_VLM_CACHE_SIZE_MB": "2048",
    }
    with serving("keye", given.model, record, given.out / "hour.log", flags=flags, cpu=given.cpu,
                 environment=environment) as server:  # fmt: skip
        rows = asyncio.run(watch(record, server, hour, given))
    parts = list(dict.fromkeys(name for row in rows for name in row if name != "what"))
    show("seconds", [{"part": name, **{row["what"]: row.get(name, "") for row in rows}} for name in parts])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
