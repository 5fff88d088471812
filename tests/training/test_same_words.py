"""What keye-tiny is trained on is, to the byte, what a real run sends: same words, sizes and places of pictures."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from keyeloop.agent.agent import Agent
from keyeloop.model_backend.keye.cost import KEYE_TINY_LIMITS, KeyeVisualCost
from keyeloop.model_backend.scripted import ScriptedBackend
from keyeloop.sandbox import availability
from keyeloop.tools import ClipVideo, Python, Zoom
from keyeloop.tools.demo_video.glyphs import GlyphAtlas
from keyeloop.tools.demo_video.record import encode
from keyeloop.tools.search.tool import web_search
from tests.training.said import spoken, written
from training.keye_tiny.builtin import builtin_specs
from training.keye_tiny.real_runs import real_tools
from training.keye_tiny.trajectories import FAMILIES, Episode


def short_episode(family: str, atlas: GlyphAtlas) -> Episode:
    """An episode with a video short enough to encode here, and the default system prompt."""
    for seed in range(10_000):
        episode = Episode(random.Random(f"{family} {seed}"), family, atlas, heldout=True)  # type: ignore[arg-type]
        if episode.world.video.duration_s <= 30 and episode.world.video.fps <= 10:
            return episode
    raise AssertionError("no short video drawn")


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_real_run_sends_what_training_shows(family: str, tmp_path: Path) -> None:
    if family == "compute" and not availability().ok:
        pytest.skip(availability().reason)
    atlas = GlyphAtlas.bundled()
    episode = short_episode(family, atlas)
    encode(episode.world.video, atlas, tmp_path / "board.mp4", preset="ultrafast")
    replies = []
    while True:
        replies.append(episode.teach())
        if episode.submit(replies[-1]):
            break
    tools = real_tools(episode)
    backend = ScriptedBackend([spoken(raw) for raw in replies], cost=KeyeVisualCost(KEYE_TINY_LIMITS))
    agent = Agent(backend, tools, runs=tmp_path / "runs")
    answer = await agent.run(episode.question.text, video=tmp_path / "board.mp4")
    assert answer.status == "answered"
    assert written(backend.requests[-1].messages, backend.requests[-1].tools) == written(
        tuple(episode.messages[:-1]), episode.tools
    )
    wanted = episode.gold_region()
    if wanted is not None:
        assert answer.citations[0].seen and answer.citations[0].region is not None
        assert answer.citations[0].region.iou(wanted) > 0.5


def test_the_real_tools_are_described_as_they_were_taught() -> None:
    real = [tool.spec for tool in (ClipVideo(), Zoom(), Python(), web_search)]
    as_json = [json.dumps([spec.name, spec.description, dict(spec.parameters)]) for spec in real]
    taught = [json.dumps([spec.name, spec.description, dict(spec.parameters)]) for spec in builtin_specs()]
    assert as_json == taught
