"""The second lesson is, to the byte, what a real run sends: documents found, clips of many frames, frames first."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from keyeloop.agent.agent import Agent
from keyeloop.model_backend.keye.cost import KEYE_TINY_LIMITS, KeyeVisualCost
from keyeloop.model_backend.scripted import ScriptedBackend
from keyeloop.tools.demo_video.corpus import bundled_documents
from keyeloop.tools.demo_video.glyphs import GlyphAtlas
from keyeloop.tools.demo_video.record import encode
from tests.training.said import spoken, written
from training.keye_tiny.real_runs import real_tools
from training.keye_tiny.second.episode import Lesson
from training.keye_tiny.second.lesson import SECOND
from training.keye_tiny.second.look_up import LookUp
from training.keye_tiny.second.whole import Whole

ATLAS = GlyphAtlas.bundled()
WAYS = ("look_up", "unknown", "when", "when late", "absent", "overview", "overview sign", "whole", "whole long", "past")
MOST_FRAMES = 420
"""Of a video that is encoded here."""


def is_of(way: str, episode: Lesson) -> bool:
    """Whether an episode goes the way that a test wants."""
    there = episode.question.answer != "not there"
    if isinstance(episode, LookUp):
        return there == (way == "look_up")
    if isinstance(episode, Whole):
        past = episode.question.times_s[0] >= episode.world.video.duration_s
        if past or way == "past":
            return past and way == "past"
        sign = "small sign" in episode.question.text and there
        long = episode.world.video.duration_s >= 30
        return episode.watch == way.split()[0] and sign == ("sign" in way) and (long or "long" not in way)
    return there == way.startswith("when") and (not there or episode.question.start_s > (33 if "late" in way else 0))


def short_episode(way: str) -> Lesson:
    """An episode of one way with a video short enough to encode here, and the default system prompt."""
    family = {"unknown": "look_up", "absent": "when"}.get(way, way.split()[0] if way.split()[0] in SECOND else "whole")
    for seed in range(10_000):
        episode = SECOND[family](random.Random(f"{way} {seed}"), ATLAS, heldout=True)
        video = episode.world.video
        if is_of(way, episode) and video.duration_s * video.fps <= MOST_FRAMES:
            return episode
    raise AssertionError(f"no short video for {way}")


@pytest.mark.parametrize("way", WAYS)
async def test_a_real_run_sends_what_the_lesson_shows(way: str, tmp_path: Path) -> None:
    episode = short_episode(way)
    video = tmp_path / "board.mp4"
    encode(episode.world.video, ATLAS, video, preset="ultrafast")
    replies = [episode.teach()]
    while not episode.submit(replies[-1]):
        replies.append(episode.teach())
    backend = ScriptedBackend(
        [spoken(raw) for raw in replies], cost=KeyeVisualCost(KEYE_TINY_LIMITS), context_tokens=32768
    )
    agent = Agent(backend, real_tools(episode), runs=tmp_path / "runs")
    given: dict[str, Any] = {"documents": bundled_documents()} if isinstance(episode, LookUp) else {}
    if isinstance(episode, Whole):
        given["watch"] = episode.watch
    answer = await agent.run(episode.question.text, video=video, **given)
    assert answer.status == "answered"
    sent = backend.requests[-1]
    assert written(sent.messages, sent.tools) == written(tuple(episode.messages[:-1]), episode.tools)
    episode.answer = answer.text
    assert episode.right()
    wanted = episode.gold_region()
    if wanted is not None and episode.question.answer != "not there":
        assert answer.citations[0].seen and answer.citations[0].region is not None
        assert answer.citations[0].region.iou(wanted) > 0.5
