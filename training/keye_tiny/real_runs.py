"""Play held-out episodes as real runs on this machine, one by one, beside the batched evaluator on the same episodes.

    python -m training.keye_tiny.real_runs --out benchmarks/results/keye_tiny_runs.json

A real run is ``Agent.run`` on an encoded file: the real tools, sandbox, template, constrained decoding and int8 weights
of the folder that ships. Episodes are the evaluator's own, in its order, that are short enough to be encoded here. They
agree where both are right or both wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import random
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from keyeloop import Agent
from keyeloop.runtime.content import Part, Text, ToolSpec
from keyeloop.tools import ClipVideo, Python, Zoom
from keyeloop.tools.base import Tool, ToolContext
from keyeloop.tools.demo_video.glyphs import GlyphAtlas
from keyeloop.tools.demo_video.record import encode
from keyeloop.tools.search.tool import web_search
from training.keye_tiny.arena import Arena
from training.keye_tiny.batch import Loader
from training.keye_tiny.boards import bundled_atlas, open_render
from training.keye_tiny.evaluate import load_folder_model
from training.keye_tiny.sample import tokenizer
from training.keye_tiny.source import open_source
from training.keye_tiny.supply import Buckets
from training.keye_tiny.trajectories import FAMILIES, Episode

MOST_FRAMES = 1200
"""Longest video, in frames, that is encoded for a run."""


class NamedTool:
    """Somebody's tool: answers as the episode says and remembers its calls."""

    timeout_s = 10.0

    def __init__(self, spec: ToolSpec, reply: str, value_name: str) -> None:
        self.spec, self._reply, self._value_name = spec, reply, value_name
        self.calls: list[tuple[str, dict[str, object]]] = []

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> tuple[Part, ...]:
        """Remember the call and answer."""
        self.calls.append((self.spec.name, dict(arguments)))
        return (Text(self._reply.format(value=arguments.get(self._value_name, ""))),)

    async def close(self, context: ToolContext) -> None:
        """Nothing is held."""


@dataclass(frozen=True)
class Played:
    """One episode both ways."""

    family: str
    question: str
    wanted: str
    real: str
    batched: str
    real_right: bool
    batched_right: bool
    cpu_s: float


def real_tools(episode: Episode) -> list[Tool]:
    """The tools that an episode offers: the built-in ones, and named ones that answer as the episode does."""
    builtin: dict[str, Tool] = {tool.spec.name: tool for tool in (ClipVideo(), Zoom(), Python(), web_search)}
    tools: list[Tool] = []
    for spec in episode.tools:
        asked = episode.named is not None and spec.name == episode.named.spec.name
        reply = episode.named.reply if episode.named and asked else "unused"
        named = NamedTool(spec, reply, episode.named.value_name if episode.named else "")
        tools.append(builtin.get(spec.name, named))
    return tools


def short_episodes(family: str, atlas: GlyphAtlas, count: int, seed: int) -> list[tuple[int, Episode]]:
    """The evaluator's first ``count`` held-out episodes of a family with few frames, and their numbers."""
    found: list[tuple[int, Episode]] = []
    index = 0
    while len(found) < count:
        episode = draw(family, atlas, seed, index)
        if episode.world.video.duration_s * episode.world.video.fps <= MOST_FRAMES:
            found.append((index, episode))
        index += 1
    return found


def draw(family: str, atlas: GlyphAtlas, seed: int, index: int) -> Episode:
    """The evaluator's held-out episode of a family, seed and number."""
    return Episode(random.Random(f"{seed} {family} {index}"), family, atlas, heldout=True)  # type: ignore[arg-type]


async def play_really(episode: Episode, model: str, atlas: GlyphAtlas, folder: Path) -> tuple[str, bool, float]:
    """What a real run answers, whether it is right, and its CPU seconds without the video's rendering."""
    video = folder / "board.mp4"
    encode(episode.world.video, atlas, video)
    tools = real_tools(episode)
    began = time.process_time()
    answer = await Agent(model, tools, runs=folder / "runs").run(episode.question.text, video=video)
    cpu_s = time.process_time() - began
    episode.answer = answer.text
    episode.called = [call for tool in tools if isinstance(tool, NamedTool) for call in tool.calls]
    return answer.text, episode.right(), cpu_s


def play_batched(episodes: list[Episode], weights: Path, atlas_path: Path, seed: int) -> None:
    """The evaluator's way, on the CPU."""
    device = torch.device("cpu")
    model = load_folder_model(weights)
    buckets = Buckets(frame_chunk=16, mixed_chunk=8)
    loader = Loader(model.shape, buckets, device, open_render(atlas_path, device, seed))
    Arena(model, open_source(atlas_path), loader, tokenizer(), buckets).play(episodes, seed=seed)


def tally(family: str, rows: list[Played]) -> str:
    """How one family went, in a line."""
    real, batched = sum(row.real_right for row in rows), sum(row.batched_right for row in rows)
    agree = sum(row.real_right == row.batched_right for row in rows)
    return f"{family:12} real {real}, batched {batched}, agree {agree} of {len(rows)}"


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=Path("model_backend/keye_tiny"), help="exported model folder")
    parser.add_argument("--each", type=int, default=12, help="runs a family")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    atlas, played = GlyphAtlas.bundled(), list[Played]()
    for family in FAMILIES:
        chosen = short_episodes(family, atlas, options.each, options.seed)
        twins = [draw(family, atlas, options.seed, index) for index, _ in chosen]
        play_batched(twins, options.weights, bundled_atlas(), options.seed)
        for (_, episode), twin in zip(chosen, twins, strict=True):
            with tempfile.TemporaryDirectory() as folder:
                said, right, cpu_s = await play_really(episode, str(options.weights), atlas, Path(folder))
            question, wanted = episode.question.text, episode.question.answer
            row = Played(family, question, wanted, said, twin.answer or "", right, twin.right(), round(cpu_s, 2))
            played.append(row)
            if row.real_right != row.batched_right:
                print(f"differs: {question} wants {wanted!r}: real {said!r}, batched {row.batched!r}", flush=True)
        print(tally(family, [row for row in played if row.family == family]), flush=True)
    result = {
        "runs": len(played),
        "real_right": sum(row.real_right for row in played),
        "batched_right": sum(row.batched_right for row in played),
        "agree": sum(row.real_right == row.batched_right for row in played),
        "cpu_s_a_run": round(sum(row.cpu_s for row in played) / len(played), 2),
        "seed": options.seed,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
        "played": [asdict(row) for row in played],
    }
    print({name: value for name, value in result.items() if name != "played"})
    if options.out:
        options.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main())
