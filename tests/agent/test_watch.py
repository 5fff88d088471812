"""Whole videos in the first message: planned to the token, decoded in one pass, addressed like a clip's frames."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rich.console import Console

from keyeloop.agent.agent import Agent
from keyeloop.agent.batch.task_file import read_tasks
from keyeloop.agent.cli import main
from keyeloop.agent.counting import counting_model
from keyeloop.agent.live import LiveView
from keyeloop.agent.task import Task
from keyeloop.agent.watching import Watch, Watching
from keyeloop.model_backend.base import Sampling
from keyeloop.model_backend.keye.cost import KEYE_2_LIMITS, KEYE_TINY_LIMITS, KeyeVisualCost
from keyeloop.model_backend.keye.presets import keye_tiny
from keyeloop.model_backend.scripted import ScriptedBackend, call
from keyeloop.runtime.budget import Limits
from keyeloop.runtime.config import Config
from keyeloop.runtime.content import Image, Text, Video, images_of
from keyeloop.runtime.errors import InputError
from keyeloop.runtime.events import RequestSent, RunStart
from keyeloop.runtime.prices import Prices
from keyeloop.runtime.trajectory import Trajectory
from tests.model_backend.loopback_server import loopback
from tests.model_backend.test_local_engine import TOKENIZER, build_backend, build_model
from tests.tools.moving_pictures import read_bar_code, write_video

TEN_SECONDS = [number * 40 for number in range(250)]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds at 25 frames a second, 160 x 96; every frame shows its number."""
    return write_video(tmp_path_factory.mktemp("film") / "film.mp4", TEN_SECONDS, options={"bf": "2", "g": "50"})


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "grey.png"
    path.write_bytes(cv2.imencode(".png", np.full((480, 640, 3), 99, np.uint8))[1].tobytes())
    return path


def keye(*replies: Any, context_tokens: int = 32_768) -> ScriptedBackend:
    return ScriptedBackend(list(replies), cost=KeyeVisualCost(KEYE_2_LIMITS), context_tokens=context_tokens)


def first_request(run: Path) -> RequestSent:
    return next(event for event in Trajectory.read(run).events if isinstance(event, RequestSent))


async def test_the_whole_video_is_one_clip_before_the_question(film: Path, tmp_path: Path) -> None:
    backend = keye(call("zoom", view="f3", box=[0, 0, 500, 500]), "it is there [f20; z1]")
    answer = await Agent(backend, runs=tmp_path).run("what?", video=film, watch="whole")
    words, clip, _, question = backend.requests[0].messages[1].parts
    assert isinstance(words, Text) and isinstance(clip, Video) and isinstance(question, Text)
    assert words.text.startswith("video-1: f1 at 0.0 s, f2 at 0.5 s, f3 at 1.0 s, ") and words.text.count(" at ") == 20
    assert question.text == "video-1: 10.0 s, 160x96\n\nwhat?"
    run = Trajectory.read(answer.run)
    numbers = [read_bar_code(run.media.pixels(frame.media)) for frame in clip.frames]
    assert [round(time_s * 25) for time_s in clip.times_s] == numbers
    assert (numbers[0], numbers[-1], len(numbers)) == (0, 249, 20)
    assert {(frame.media.width, frame.media.height) for frame in clip.frames} == {(308, 196)}
    (span,) = run.looked()["video-1"]
    assert (span.start_s, span.end_s, span.views) == (0.0, 9.96, 21)
    last, crop = answer.citations
    assert last.seen and last.time_s == 9.96
    assert crop.seen and crop.time_s == clip.times_s[2] and crop.region is not None and crop.region.x1 == 80
    assert run.start.config["watch"] == "whole" and isinstance(run.messages()[1].parts[1], Video)


@pytest.mark.parametrize("watch", ["none", "overview", "whole"])
async def test_the_plan_counts_the_very_tokens_of_the_first_request(
    watch: Watch, film: Path, picture: Path, tmp_path: Path
) -> None:
    """With the embedded model's engine, tokenizer and template on random weights."""
    backend = build_backend()
    short, prices = Sampling(max_tokens=2), Prices(2.0, 8.0)
    async with Agent(backend, [], limits=Limits(turns=1), sampling=short, runs=tmp_path, prices=prices) as agent:
        inputs: dict[str, Any] = {"videos": [film, film], "images": [picture], "watch": watch}
        planned = await agent.plan("what?", **inputs)
        answer = await agent.run("what?", **inputs)
    sent = first_request(answer.run)
    assert (planned.input_tokens, planned.visual_tokens) == (sent.input_tokens, sent.visual_tokens)
    assert planned.cost == pytest.approx(sent.input_tokens * 2e-6)
    clips = sum(plan.visual_tokens for plan in planned.videos.values())
    assert planned.visual_tokens == clips + planned.images["image-1"].tokens
    assert planned.share < 0.66 and len(planned.videos) == (0 if watch == "none" else 2)
    shown = [part for part in Trajectory.read(answer.run).messages()[1].parts if not isinstance(part, Text)]
    assert [type(part) for part in shown] == [Video] * len(planned.videos) + [Image]
    handles = [image.view.handle for part in shown for image in images_of(part) if image.view]
    assert handles == [f"f{number}" for number in range(1, len(handles) + 1)]


async def test_none_is_what_a_run_always_was(film: Path, tmp_path: Path) -> None:
    backends = [keye("x"), keye("x")]
    plain = await Agent(backends[0], runs=tmp_path / "a").run("what?", video=film)
    none = await Agent(backends[1], runs=tmp_path / "b").run("what?", video=film, watch="none")
    assert backends[0].requests == backends[1].requests
    one, other = (Trajectory.read(answer.run).start for answer in (plain, none))
    assert one.messages == other.messages and one.config == other.config and "watch" not in one.config
    assert [part for part in backends[1].requests[0].messages[1].parts if not isinstance(part, Text)] == []


async def test_a_replay_of_a_whole_video_plans_the_same(film: Path, tmp_path: Path) -> None:
    small = keye("seen [f2]", context_tokens=2_600)
    answer = await Agent(small, runs=tmp_path).run("what?", video=film, watch="whole")
    assert len(Trajectory.read(answer.run).views()) < 20, "the context is what bounds it"
    again = await Agent(f"replay:{answer.run}", runs=tmp_path / "again").run("what?", video=film, watch="whole")
    assert str(again) == "seen"


async def test_watching_is_told_before_the_run_begins(film: Path, tmp_path: Path) -> None:
    events = [event async for event in Agent(keye("x"), runs=tmp_path).stream("?", video=film, watch="overview")]
    told = [event for event in events if isinstance(event, Watching)]
    assert told == [Watching("video-1", done, 12) for done in range(13)]
    assert isinstance(events[13], RunStart) and events[:13] == told
    console = Console(force_terminal=True, width=80)
    with console.capture() as shown, LiveView(console, tmp_path) as view:
        view.on(told[6])
    assert "decoding video-1: 6 of 12 frames" in shown.get() and "━" in shown.get()
    with console.capture() as shown, LiveView(console, tmp_path) as view:
        view.on(events[13])
    assert "━" not in shown.get()


async def test_nothing_is_left_of_a_pass_that_fails_or_is_cancelled(film: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(film.read_bytes())
    agent = Agent(keye("x"), runs=tmp_path / "runs")

    async def until(done: int) -> None:
        async with aclosing(agent.stream("?", video=damaged, watch="whole")) as events:
            async for event in events:
                if isinstance(event, Watching) and event.done == done:
                    raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await until(3)
    assert list((tmp_path / "runs").glob("*/*")) == []
    stream = agent.stream("?", video=damaged, watch="whole")
    with pytest.raises(InputError, match=r"damaged\.mp4 changed on disk since it was first opened"):
        async for event in stream:
            if isinstance(event, Watching):
                damaged.write_bytes(damaged.read_bytes()[:-1])
    assert list((tmp_path / "runs").glob("*/*")) == []


async def test_limits_of_picture_tokens_and_context_hold(film: Path, picture: Path, tmp_path: Path) -> None:
    agent = Agent(keye("x"), limits=Limits(visual_tokens=1000), runs=tmp_path)
    plan = await agent.plan("?", video=film, images=[picture], watch="whole")
    assert plan.visual_tokens <= 1000 and plan.images["image-1"].tokens == 391
    with pytest.raises(InputError, match=r"not one frame of .*film.mp4 fits the \d+ tokens"):
        await Agent(keye("x", context_tokens=700), runs=tmp_path).run("?", video=film, watch="whole")
    with pytest.raises(InputError, match="watch is 'all': choose one of none, overview, whole"):
        await Agent(keye("x"), runs=tmp_path).run("?", video=film, watch="all")  # type: ignore[arg-type]


async def test_to_a_served_model_frames_count_as_the_stills_they_travel_as(film: Path, tmp_path: Path) -> None:
    cost = KeyeVisualCost(KEYE_TINY_LIMITS)
    served = ScriptedBackend(["x"], cost=cost, native_video=False, context_tokens=4096)
    plan = await Agent(served, runs=tmp_path).plan("?", video=film, watch="whole")
    size = plan.videos["video-1"].size
    assert plan.videos["video-1"].each_tokens == cost.image(size.width, size.height).tokens


async def test_tasks_of_many_may_watch(film: Path, tmp_path: Path) -> None:
    lines = tmp_path / "tasks.jsonl"
    bare = {"task": "?", "video": str(film)}
    lines.write_text("".join(json.dumps(line) + "\n" for line in (bare, {**bare, "watch": "overview"})))
    plain, watching = read_tasks(lines)
    assert (plain.task.watch, watching.task.watch) == ("none", "overview")
    assert plain.asked == {"task": "?", "videos": [str(film)]} and watching.asked["watch"] == "overview"
    assert plain.task.id != watching.task.id
    backend = keye("a", "b")
    outcomes = await Agent(backend, runs=tmp_path).run_many([Task("?", film, watch="overview")], concurrency=1)
    assert outcomes[0].run is not None and len(Trajectory.read(outcomes[0].run).views()) == 12


def keyeloop(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(left.value.code or 0)


def test_the_plan_on_the_command_line_sends_and_records_nothing(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    recorded = Agent(keye("x"), runs="recorded").run_sync("what?", video=film, watch="whole").run
    before = {path: path.stat().st_mtime_ns for path in recorded.rglob("*")}
    monkeypatch.setenv("KEYELOOP_PRICE_INPUT", "0.5")
    monkeypatch.setenv("KEYELOOP_PRICE_OUTPUT", "2")
    arguments = ("run", "what?", "--video", film, "--watch", "whole", "--plan", "--model", f"replay:{recorded}")
    assert keyeloop(*arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[1] == "  20 frames, one every 0.524 s, 0:00:00.000 to 0:00:09.960, each 308x196 (77 tokens): 1,540 tokens"
    )
    assert lines[2].startswith("first request to scripted: ") and lines[2].endswith("of its context of 32,768")
    assert lines[3].startswith("estimated cost of its input: 0.0") and lines[4] == "no request was sent"
    assert keyeloop(*arguments, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["input_tokens"] == first_request(recorded).input_tokens
    (video,) = told["videos"]
    assert (video["frames"], video["first_s"], video["last_s"], video["frame_tokens"]) == (20, 0.0, 9.96, 77)
    assert len(video["times_s"]) == 20 and told["cost"] == pytest.approx(told["input_tokens"] * 0.5e-6)
    assert not Path("runs").exists() and before == {path: path.stat().st_mtime_ns for path in recorded.rglob("*")}
    assert keyeloop("run", "what?", "--video", film, "--watch", "some", "--model", f"replay:{recorded}") == 2
    assert "choose one of none, overview, whole" in capsys.readouterr().err


def test_a_plan_needs_no_weights_and_imports_little(film: Path, tmp_path: Path) -> None:
    """A model's folder is read but for its weights; a probe of a file that is never hashed."""
    config = keye_tiny(1000, build_model().config.tokens)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    (folder / "tokenizer.json").write_bytes(TOKENIZER.read_bytes())
    (folder / "model.safetensors").write_bytes(b"none")
    assert counting_model(folder).capabilities().context_tokens == config.max_position_embeddings
    program = f"""
import asyncio, sys
from keyeloop import Agent
from keyeloop.runtime import source
source.hash_file = lambda *_: 1 / 0
plan = asyncio.run(Agent({str(folder)!r}).plan("what?", video={str(film)!r}, watch="whole"))
slow = {{"torch", "jsonschema", "httpx", "docker", "av"}} & set(sys.modules)
assert not slow, slow
print(plan.visual_tokens)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert 0 < int(done.stdout) <= KEYE_TINY_LIMITS.clip_total_tokens


def test_a_plan_for_a_server_asks_it_for_its_models_at_most(film: Path, tmp_path: Path) -> None:
    with loopback([], models=("keye-2.0",), max_model_len=50_000) as server:
        plan = asyncio.run(Agent(server.address, runs=tmp_path).plan("what?", video=film, watch="whole"))
        assert server.received == [], "no chat request"
        named = f"{server.address}#keye-2.0"
        unseen = Config(model=named, pictures="omit", context_tokens=50_000)
        blind = asyncio.run(Agent(settings=unseen).plan("what?", video=film, watch="whole"))
        told = asyncio.run(Agent(named, settings=Config(pictures="user")).plan("what?", video=film))
        assert server.received == []
    assert plan.context_tokens == 50_000 and len(plan.videos["video-1"].times_s) == 20
    assert "was not tried" in plan.note and plan.note in str(plan) and plan.to_json()["note"] == plan.note
    assert "sees nothing" in blind.note and blind.visual_tokens == 0 and told.note == ""
