"""What is said in a video, through an engine of one's own: what it is handed, and when its words were said."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from keyeloop import Agent
from keyeloop.agent.user_tools import load_tool
from keyeloop.model_backend.scripted import ScriptedBackend, call
from keyeloop.runtime.content import Text
from keyeloop.runtime.errors import ConfigError, InputError, ToolError
from keyeloop.runtime.media import MediaStore
from keyeloop.runtime.views import ViewBook
from keyeloop.tools import Listen
from keyeloop.tools.base import Progress, ToolContext
from keyeloop.tools.perception import listen
from keyeloop.tools.perception.listener import Heard
from keyeloop.tools.video.decoder import Decoder
from keyeloop.tools.video.frames import STATE_KEY
from keyeloop.tools.video.probe import open_source
from keyeloop.tools.video.sound import RATE_HZ, Samples
from tests.tools.conftest import TileCost
from tests.tools.moving_pictures import write_video
from tests.tools.talking_pictures import BURST_S, bursts, onsets, write_talk


class Beeps:
    """An engine that knows one word: a loud stretch is a beep."""

    def __init__(self, pause_s: float = 0.0) -> None:
        self.pause_s = pause_s
        self.languages: list[str | None] = []
        self.heard = 0

    def listen(self, sound: Samples, language: str | None) -> Iterator[Heard]:
        self.languages.append(language)
        if language == "xx":
            raise ToolError("this engine does not know 'xx'; it knows en")
        assert sound.dtype == np.float32 and sound.ndim == 1
        for start_s in onsets(sound, RATE_HZ) if sound.any() else ():
            time.sleep(self.pause_s)
            self.heard += 1
            yield Heard(start_s, start_s + BURST_S, " beep\n", 0.75)


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder() as one:
        yield one


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_talk(tmp_path_factory.mktemp("talk") / "talk.mp4", bursts([1.0, 3.0, 6.5], 8.0, 16_000), 16_000)


@pytest.fixture
def context(talk: Path, tmp_path: Path, decoder: Decoder) -> ToolContext:
    mute = write_video(tmp_path / "mute.mp4", [40 * number for number in range(20)])
    inputs = {name: open_source(path, name, decoder=decoder) for name, path in (("video-1", talk), ("video-2", mute))}
    made = ToolContext(inputs, MediaStore(tmp_path / "media"), ViewBook(), TileCost(), visual_budget_tokens=100)
    made.state[STATE_KEY] = decoder
    return made


async def heard(tool: Listen, context: ToolContext, **arguments: Any) -> str:
    arguments = {"video": "video-1", **arguments}
    jsonschema.validate(arguments, dict(Listen.spec.parameters))
    (text,) = await tool.call(arguments, context)
    assert isinstance(text, Text)
    return text.text


async def test_times_are_those_of_the_video_whatever_span_is_heard(context: ToolContext) -> None:
    tool = Listen(Beeps())
    assert await heard(tool, context) == (
        "video-1, heard from 0.0 s to 8.0 s:\n1.0-1.5 s: beep (0.75)\n3.0-3.5 s: beep (0.75)\n6.5-7.0 s: beep (0.75)"
    )
    assert await heard(tool, context, start_s=2.2, end_s=3.25, language=" EN ") == (
        "video-1, heard from 2.2 s to 3.2 s:\n3.0-3.2 s: beep (0.75)"
    )
    assert await heard(tool, context, start_s=4.0, end_s=6.0) == "video-1, heard from 4.0 s to 6.0 s: no speech"
    assert tool._listener.languages == [None, "en", None]  # type: ignore[attr-defined]


async def test_a_long_span_is_heard_in_parts(context: ToolContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "MAX_SPAN_S", 4.0)
    first = await heard(Listen(Beeps()), context)
    assert first.splitlines()[-1] == "(not heard yet: from 4.0 s to 8.0 s; ask again with start_s 4.0)"
    assert "beep" in await heard(Listen(Beeps()), context, start_s=4.0) and first.count("beep") == 2
    monkeypatch.setattr(listen, "MAX_CHARS", 30)
    assert (await heard(Listen(Beeps()), context, end_s=4.0)).splitlines()[1:] == [
        "1.0-1.5 s: beep (0.75)",
        "(not heard yet: from 3.0 s to 4.0 s; ask again with start_s 3.0)",
    ]


async def test_a_slow_engine_gives_what_it_has_in_time(context: ToolContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "PATIENCE_S", 0.1)
    text = await heard(Listen(Beeps(pause_s=0.15)), context)
    assert text.splitlines()[1:] == [
        "1.0-1.5 s: beep (0.75)",
        "(not heard yet: from 1.5 s to 8.0 s; ask again with start_s 1.5)",
    ]


async def test_how_far_it_is_is_reported(context: ToolContext) -> None:
    told: list[Progress] = []
    context.on_progress = told.append
    await heard(Listen(Beeps()), context)
    assert [one.text for one in told] == ["heard until 2 s", "heard until 4 s", "heard until 7 s"]
    assert told[-1].done == pytest.approx(7.0, abs=0.05) and told[-1].total == 8.0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"video": "video-2"}, r"^video-2 has no sound$"),
        ({"video": "video-3"}, "there is no video 'video-3'"),
        ({"start_s": 3, "end_s": 3}, "nothing is to be heard: give a later end_s"),
        ({"start_s": 5, "end_s": 3}, "end_s 3 is before start_s 5"),
        ({"start_s": 99}, "is past its end"),
        ({"language": "xx"}, "this engine does not know 'xx'"),
    ],
)
async def test_what_cannot_be_heard_is_told(arguments: dict[str, Any], told: str, context: ToolContext) -> None:
    with pytest.raises(ToolError, match=told):
        await heard(Listen(Beeps()), context, **arguments)


async def test_a_run_hears_and_answers(talk: Path, tmp_path: Path) -> None:
    script = ScriptedBackend([call("listen", video="video-1", start_s=2), "twice [video-1 3.0s]"])
    answer = await Agent(script, tools=[Listen(Beeps())], runs=tmp_path / "runs").run("How often?", video=talk)
    (citation,) = answer.citations
    assert (citation.source, citation.time_s, citation.seen) == ("video-1", 3.0, False)  # heard, not looked at
    assert script.requests[-1].messages[-1].text.count("beep") == 2


def test_it_wants_a_model_by_name() -> None:
    with pytest.raises(ConfigError, match=r"--tool listen:whisper-small; pip install .*download_model\('small'"):
        load_tool("listen")
    with pytest.raises(InputError, match=r"is not FILE.py:function|no such file"):
        load_tool("compare:whisper-small")


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_whisper", None)  # which is how Python notes that there is none
    with pytest.raises(ConfigError, match=r'^listen needs faster_whisper: pip install "keyeloop\[listen\]", or give'):
        load_tool("listen:whisper-small")
