"""A second question on the local engine, random weights: what was read before is not read again."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from keyeloop.agent.agent import Agent
from keyeloop.model_backend.base import Sampling
from keyeloop.runtime.trajectory import Trajectory
from keyeloop.tools.video.decoder import Decoder
from tests.model_backend.test_local_engine import build_backend, build_model

PAGE_TOKENS = 64
"""Of SGLang's cache, which keeps whole pages only."""


async def test_a_second_question_is_served_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [tmp_path / f"{number}.png" for number in range(17)]
    for number, path in enumerate(pictures):
        cv2.imwrite(str(path), np.random.default_rng(number).integers(0, 255, (224, 224, 3), np.uint8))
    backend = build_backend(build_model({"</think>": 3.0, "<|im_end|>": 2.0}))
    agent = Agent(backend, [], runs=tmp_path / "runs", sampling=Sampling(max_tokens=40))
    first = await agent.run("What is on the board, and where is it?", images=pictures)
    monkeypatch.setattr(Decoder, "_ask", lambda *_: pytest.fail("a second question decodes nothing"))
    second = await first.ask("And then?")
    await agent.close()
    reply = Trajectory.read(second.run).exchanges[1].steps[0].reply
    assert reply is not None and reply.usage.visual_tokens >= 17 * 16
    total, cached = reply.usage.input_tokens, reply.usage.cached_tokens
    assert total > 1300 and cached // PAGE_TOKENS * PAGE_TOKENS >= 0.95 * total
