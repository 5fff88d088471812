"""keye-tiny says so where footage is unlike what it was trained on: a notice that names the ways to a real model."""

from __future__ import annotations

import io
import random
from pathlib import Path

import av
import cv2
import numpy as np
from rich.console import Console

from keyeloop.agent.agent import Agent
from keyeloop.agent.cli.demo import bundled_question
from keyeloop.agent.footage import CODE
from keyeloop.agent.live import LiveView
from keyeloop.model_backend.scripted import ScriptedBackend
from keyeloop.runtime.events import Event, EventBase, Noticed
from keyeloop.runtime.picture import Pixels
from keyeloop.tools.demo_video.glyphs import GlyphAtlas
from keyeloop.tools.demo_video.likeness import LEAST, board_likeness
from keyeloop.tools.demo_video.paint import paint
from keyeloop.tools.demo_video.record import encode
from keyeloop.tools.demo_video.timeline import sample_video

ATLAS = GlyphAtlas.bundled()


def street(seed: int) -> Pixels:
    """Something like a camera's picture: soft areas of many sizes, shadows, grain; no panel."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((360, 640, 3), np.float32)
    for cells, weight in ((3, 120.0), (9, 60.0), (40, 40.0), (160, 25.0)):
        soft = rng.random((cells, cells * 16 // 9, 3), np.float32)
        picture += weight * cv2.resize(soft, (640, 360), interpolation=cv2.INTER_CUBIC)
    return np.clip(picture + rng.normal(0, 4, picture.shape), 0, 255).astype(np.uint8)


def film(path: Path, picture: Pixels, frames: int = 8) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = picture.shape[1], picture.shape[0], "yuv420p"
        for _ in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


async def notices(model: str, tmp_path: Path, **inputs: Path | list[Path]) -> list[Event]:
    agent = Agent(ScriptedBackend(["Nothing."], model=model), runs=tmp_path / "runs")
    found = [event async for event in agent.stream("What is it?", **inputs)]  # type: ignore[arg-type]
    return [event for event in found if isinstance(event, EventBase)]


def test_boards_have_a_panel_and_other_pictures_none() -> None:
    boards = [sample_video(random.Random(seed), ATLAS, heldout=True).scene_at(0.0) for seed in range(30)]
    assert sum(board_likeness(paint(scene, ATLAS)) < LEAST for scene in boards) <= 1
    assert all(board_likeness(street(seed)) < LEAST for seed in range(20))
    empty = np.full((144, 176, 3), 90, np.uint8)
    assert board_likeness(empty) == 0.0
    letterbox = np.concatenate((empty[:30] * 0, street(1)[:84, :176], empty[:30] * 0))
    assert board_likeness(letterbox) < LEAST


async def test_unlike_footage_is_noticed_at_the_start(tmp_path: Path) -> None:
    events = await notices("keye-tiny", tmp_path, video=film(tmp_path / "street.mp4", street(3)))
    kinds = [event.kind for event in events]
    assert kinds[:3] == ["run_start", "notice", "request"]
    (notice,) = [event for event in events if isinstance(event, Noticed)]
    assert notice.code == CODE and notice.message is None
    assert "video-1" in notice.text and "--model http://" in notice.text and "--model FOLDER" in notice.text
    console = Console(width=500, record=True, file=io.StringIO())
    with LiveView(console, tmp_path) as view:
        for event in events:
            view.on(event)
    assert notice.text in console.export_text()


async def test_boards_and_other_models_are_left_alone(tmp_path: Path) -> None:
    video = sample_video(random.Random(5), ATLAS, heldout=True, duration_s=2.0, shots=3)
    encode(video, ATLAS, tmp_path / "board.mp4", preset="ultrafast")
    street_mp4 = film(tmp_path / "street.mp4", street(4))
    for model, path in (("keye-tiny", tmp_path / "board.mp4"), ("scripted", street_mp4)):
        events = await notices(model, tmp_path, video=path)
        assert not [event for event in events if isinstance(event, Noticed)]
    both = await notices("keye-tiny", tmp_path, videos=[tmp_path / "board.mp4", street_mp4])
    (notice,) = [event for event in both if isinstance(event, Noticed)]
    assert "video-2 looks" in notice.text and "video-1" not in notice.text


async def test_an_image_is_looked_at_too(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "street.jpg"), street(6))
    events = await notices("keye-tiny", tmp_path, images=[tmp_path / "street.jpg"])
    assert [event.code for event in events if isinstance(event, Noticed)] == [CODE]


async def test_the_bundled_video_is_a_board(tmp_path: Path) -> None:
    events = await notices("keye-tiny", tmp_path, video=bundled_question()[0])
    assert not [event for event in events if isinstance(event, Noticed)]
