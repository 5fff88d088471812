"""Inputs of a run: how videos and pictures reach the model, and that nothing is recorded before they are sound."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from keyeloop.agent.agent import Agent
from keyeloop.agent.checks import Check, module, run_checks
from keyeloop.model_backend.scripted import PatchCost, Script, ScriptedBackend, call
from keyeloop.runtime.content import Image, Text, ToolSpec
from keyeloop.runtime.errors import InputError, ToolDefinitionError, UsageError
from keyeloop.runtime.trajectory import Trajectory
from keyeloop.tools.video.clip import ClipVideo
from keyeloop.tools.video.zoom import Zoom
from tests.agent.small_tools import add
from tests.tools.moving_pictures import write_video

SECOND = [number * 40 for number in range(25)]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """640 x 480: the left half red, the right half blue."""
    pixels = np.zeros((480, 640, 3), np.uint8)
    pixels[:, :320], pixels[:, 320:] = (0, 0, 255), (255, 0, 0)
    path = tmp_path / "halves.png"
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    return path


async def test_a_picture_is_shown_under_a_handle_at_the_model_s_size(tmp_path: Path, picture: Path) -> None:
    script: list[Script] = [call("zoom", view="f1", box=[500, 0, 1000, 1000]), "blue [z1] and [image-1 0,0,500,1000]"]
    backend = ScriptedBackend(script, cost=PatchCost(max_image_tokens=64))
    answer = await Agent(backend, [Zoom()], runs=tmp_path / "runs").run("which colour is right?", images=[picture])
    label, shown, _, words = backend.requests[0].messages[1].parts
    assert label == Text("image-1: f1") and isinstance(shown, Image) and isinstance(words, Text)
    assert words.text == "image-1: 640x480\n\nwhich colour is right?"
    assert shown.media.width * shown.media.height <= 64 * 28 * 28
    assert shown.view is not None and (shown.view.region.x1, shown.view.region.y1) == (640, 480)
    run = Trajectory.read(answer.run)
    assert run.media.pixels(shown.media)[5, 5].tolist() == pytest.approx([255, 0, 0], abs=3)
    crop, named = answer.citations
    assert crop.seen and crop.region is not None and crop.region.x0 == 320
    assert named.seen and named.region is not None and named.region.x1 == 320
    zoomed = backend.requests[1].messages[-1].parts[1]
    assert isinstance(zoomed, Image)
    assert run.media.pixels(zoomed.media)[5, 5].tolist() == pytest.approx([0, 0, 255], abs=3)


async def test_videos_are_named_in_order(tmp_path: Path) -> None:
    first, second = (write_video(tmp_path / f"{name}.mp4", SECOND) for name in "ab")
    backend = ScriptedBackend([call("clip_video", video="video-2", start_s=0, end_s=0), "seen [f1]"])
    agent = Agent(backend, [ClipVideo()], runs=tmp_path / "runs")
    answer = await agent.run("what?", video=first, videos=[second])
    assert backend.requests[0].messages[1].text.splitlines()[:2] == [
        "video-1: 1.0 s, 160x96",
        "video-2: 1.0 s, 160x96",
    ]
    assert [source.path for source in Trajectory.read(answer.run).start.inputs] == [str(first), str(second)]
    assert answer.citations[0].source == "video-2" and answer.citations[0].seen


async def test_nothing_is_recorded_for_inputs_that_cannot_be_used(tmp_path: Path, picture: Path) -> None:
    agent = Agent(ScriptedBackend(["x"]), [], runs=tmp_path / "runs")
    for wrong in (
        {"video": tmp_path / "none.mp4"},
        {"video": picture},
        {"images": [tmp_path / "none.png"]},
        {"documents": picture},
    ):
        with pytest.raises(InputError):
            await agent.run("what?", **wrong)
    with pytest.raises(InputError, match=r"videos and images are lists of files: write \['b.mp4'\]"):
        await agent.run("what?", videos="b.mp4")
    with pytest.raises(InputError, match=r"video-1 is \['b.mp4'\], which is no path"):
        await agent.run("what?", video=["b.mp4"])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="the question is empty"):
        await agent.run(" \n")
    assert not (tmp_path / "runs").exists()


async def test_waiting_inside_an_event_loop_is_told_to_await() -> None:
    with pytest.raises(UsageError, match=r"run_sync cannot wait where an event loop runs .*: await agent.run"):
        Agent(ScriptedBackend(["x"]), []).run_sync("what?")


@pytest.mark.parametrize("model", [5, object])
def test_a_model_that_is_none_is_told_at_once(model: object) -> None:
    with pytest.raises(InputError, match="is no name, no folder and no backend"):
        Agent(model)  # type: ignore[arg-type]


def test_tools_are_checked_before_anything_runs() -> None:
    backend = ScriptedBackend([])
    with pytest.raises(ToolDefinitionError, match="two tools are called 'add'"):
        Agent(backend, [add, add])
    with pytest.raises(ToolDefinitionError, match="put @tool above"):
        Agent(backend, [len])  # type: ignore[list-item]

    class Bent:
        spec, timeout_s = ToolSpec("bent", "Bent.", {"type": "no such type"}), 1.0

        async def call(self, arguments, context):  # type: ignore[no-untyped-def]
            return ()

        async def close(self, context):  # type: ignore[no-untyped-def]
            return None

    with pytest.raises(ToolDefinitionError, match="parameters of tool 'bent' are no JSON schema"):
        Agent(backend, [Bent()])


@pytest.mark.parametrize("model", ["no-such-model", "replay:nowhere", Path("nowhere")])
def test_a_model_that_is_not_there_is_told_at_once(model: str | Path) -> None:
    with pytest.raises(InputError, match=r"nowhere|no-such-model"):
        Agent(model)


def test_the_doctor_tries_everything_and_knows_cures() -> None:
    found = {check.name: check for check in run_checks()}
    assert list(found) == [
        "python", "av", "cv2", "torch", "llguidance", "mcp", "starlette", "uvicorn", "opentelemetry.sdk", "rapidocr",
        "faster_whisper", "keye-tiny", "sandbox: bubblewrap", "sandbox: docker", "sandbox: runsc",
        "sandbox: unsafe-local", "gpu", "sglang",
    ]  # fmt: skip
    assert found["av"].state == found["python"].state == "ok"
    assert all(check.cure for check in found.values() if check.state != "ok")
    assert module("no_such_package", "nothing", "install it") == Check(
        "no_such_package", "missing", "not installed: nothing", "install it"
    )
