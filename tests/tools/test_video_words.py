"""Subtitles inside a video and beside it, read in the guarded child."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import av
import jsonschema
import pytest

from keyeloop.runtime.content import Text
from keyeloop.runtime.errors import ToolError
from keyeloop.tools import Transcript
from keyeloop.tools.base import ToolContext
from keyeloop.tools.video.decoder import Decoder
from keyeloop.tools.video.frames import STATE_KEY
from keyeloop.tools.video.probe import open_source
from keyeloop.tools.video.words import read_words
from tests.tools.moving_pictures import write_video

SRT = """1
00:00:01,000 --> 00:00:02,500
Hello <i>world</i>
of two lines

2
00:00:03,000 --> 00:00:04,000
{\\an8}Grüße, und Tschüß
"""
VTT = "WEBVTT\n\nNOTE made by hand\n\n00:01.000 --> 00:02.000 align:start\n<v Ann>Good morning\n"
ASS = (
    "[Script Info]\nScriptType: v4.00+\n\n[Events]\n"
    "Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
    "Dialogue: 0,0:00:01.50,0:00:02.00,Default,,0,0,0,,{\\b1}Bold{\\b0} words\\Nbelow\n"
)
TIMES = [40 * number for number in range(150)]


def with_subtitles(path: Path, video: Path, texts: dict[str, str]) -> Path:
    """The video with one SubRip stream for each language."""
    words = [av.open(io.BytesIO(text.encode()), "r", format="srt") for text in texts.values()]
    with av.open(str(path), "w") as out, av.open(str(video)) as file:
        tracks: list[Any] = [out.add_stream_from_template(file.streams.video[0])]
        for language, one in zip(texts, words, strict=True):
            tracks.append(out.add_stream_from_template(one.streams[0]))
            tracks[-1].metadata["language"] = language
        for track, container in zip(tracks, (file, *words), strict=True):
            packets: list[Any] = [packet for packet in container.demux() if packet.size]
            for packet in packets:
                packet.stream = track
                out.mux(packet)
    for one in words:
        one.close()
    return path


@pytest.fixture
async def context(tmp_path: Path) -> AsyncIterator[Any]:
    made: list[ToolContext] = []

    def make(video: Path) -> ToolContext:
        from keyeloop.runtime.media import MediaStore
        from keyeloop.runtime.views import ViewBook
        from tests.tools.conftest import TileCost

        decoder = Decoder()
        inputs = {"video-1": open_source(video, "video-1", decoder=decoder)}
        one = ToolContext(inputs, MediaStore(tmp_path / "media"), ViewBook(), TileCost(), visual_budget_tokens=100)
        one.state[STATE_KEY] = decoder
        made.append(one)
        return one

    yield make
    for one in made:
        await Transcript().close(one)


async def read(context: ToolContext, **arguments: Any) -> str:
    arguments = {"video": "video-1", **arguments}
    jsonschema.validate(arguments, dict(Transcript.spec.parameters))
    (text,) = await Transcript().call(arguments, context)
    assert isinstance(text, Text)
    return text.text


async def test_embedded_subtitles_have_the_times_of_the_frames(tmp_path: Path, context: Any) -> None:
    video = write_video(tmp_path / "plain.mkv", TIMES)
    film = with_subtitles(tmp_path / "film.mkv", video, {"eng": SRT, "ger": SRT.replace("Hello", "Hallo")})
    run = context(film)
    assert await read(run) == (
        "video-1, stream 1 (eng) (also: stream 2 (ger)):\n"
        "1.0-2.5 s: Hello world of two lines\n3.0-4.0 s: Grüße, und Tschüß"
    )
    assert "Hallo world" in await read(run, language="ger", end_s=2.9)
    assert await read(run, contains="tschüSS".casefold()) == (
        "video-1, stream 1 (eng) (also: stream 2 (ger)):\n3.0-4.0 s: Grüße, und Tschüß"
    )
    assert await read(run, contains="nothing", start_s=2.0) == (
        "video-1, stream 1 (eng) (also: stream 2 (ger)): no line with 'nothing' from 2.0 s to 6.0 s"
    )
    with pytest.raises(ToolError, match=r"no subtitles in 'fr'; there are: stream 1 \(eng\), stream 2 \(ger\)"):
        await read(run, language="fr")


async def test_times_count_from_the_first_frame(tmp_path: Path) -> None:
    video = write_video(tmp_path / "late.mkv", [500 + time for time in TIMES])
    film = with_subtitles(tmp_path / "film.mkv", video, {"eng": SRT})
    with Decoder() as decoder:
        (words,) = read_words(str(film), decoder)
    assert [cue.start_s for cue in words.cues] == pytest.approx([0.5, 2.5])


@pytest.mark.parametrize(
    ("name", "data", "line"),
    [
        ("talk.srt", SRT.encode(), "1.0-2.5 s: Hello world of two lines"),
        ("talk.en.vtt", VTT.encode("utf-8-sig"), "1.0-2.0 s: Good morning"),
        ("talk.ass", ASS.encode("utf-16"), "1.5-2.0 s: Bold words below"),
        ("talk.de.srt", SRT.encode("cp1252"), "3.0-4.0 s: Grüße, und Tschüß"),
    ],
)
async def test_a_file_beside_the_video_is_read(name: str, data: bytes, line: str, tmp_path: Path, context: Any) -> None:
    video = write_video(tmp_path / "talk.mp4", TIMES)
    (tmp_path / name).write_bytes(data)
    (tmp_path / "other.srt").write_bytes(b"1\n00:00:01,000 --> 00:00:02,000\nnot mine\n")
    text = await read(context(video))
    assert line in text.splitlines() and name in text and "not mine" not in text


async def test_what_is_missing_or_broken_is_told(tmp_path: Path, context: Any) -> None:
    video = write_video(tmp_path / "talk.mp4", TIMES)
    run = context(video)
    with pytest.raises(ToolError, match=r"^video-1 has no subtitles in it or beside it: look at frames instead$"):
        await read(run)
    (tmp_path / "talk.srt").write_bytes(b"\x00\x01 no words")
    (tmp_path / "talk.en.srt").symlink_to("/etc/hostname")
    again = context(video)
    with pytest.raises(ToolError, match=r"beside it; talk\.srt is no subtitle file \(SubRip, WebVTT or ASS\)"):
        await read(again)


async def test_a_long_transcript_is_told_in_pages(tmp_path: Path, context: Any) -> None:
    video = write_video(tmp_path / "talk.mp4", TIMES)
    cues = [
        f"{n}\n00:00:0{n * 5 // 1000},{n * 5 % 1000:03d} --> 00:00:05,900\nline {n} {'x' * 40}\n" for n in range(900)
    ]
    (tmp_path / "talk.srt").write_text("\n".join(cues))
    run = context(video)
    seen, start_s = 0, 0.0
    for _ in range(20):
        *lines, last = (await read(run, start_s=start_s)).splitlines()[1:]
        assert sum(map(len, lines)) < 6500
        if not last.startswith("("):
            break
        seen += 1
        start_s = 5.0
    assert seen >= 1 and "more lines: ask again with start_s" in last
