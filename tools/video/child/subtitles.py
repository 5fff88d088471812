"""Words with times: subtitle streams inside a video, and subtitle files (SubRip, WebVTT, ASS)."""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass
from typing import Any

import av

from keyeloop.tools.confined.errors import Unusable
from keyeloop.tools.video.child.container import open_stream
from keyeloop.tools.video.child.video import VideoReader

READ = frozenset("mov_text subrip srt ass ssa webvtt text".split())
MAX_FILE_BYTES = 16 << 20
MAX_CUES = 50_000
_STYLE = re.compile(r"\{\\[^}]*\}|\\[Nnh]")
"""What ASS writes among the words: ``{\\i1}``, ``\\N``."""


@dataclass(frozen=True)
class Cue:
    """What is said from ``start_s`` to ``end_s``, in seconds from the first frame."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True)
class Track:
    """One stream of subtitles. ``cues`` are in order of their start; none where they are pictures of words."""

    codec: str
    language: str
    title: str
    cues: tuple[Cue, ...]


def embedded(reader: VideoReader) -> tuple[Track, ...]:
    """Every subtitle stream of a video."""
    with reader.open_again() as (container, _):
        streams = list(container.streams.subtitles)
        for stream in container.streams:
            stream.discard = av.stream.Discard.default if stream in streams else av.stream.Discard.all
        return _tracks(container, streams, reader.seconds_of(0)) if streams else ()


def subtitle_file(fd: int) -> Track:
    """The words of a file beside a video; takes over ``fd``. Raises Unusable for what is none of the known formats."""
    try:
        size = os.fstat(fd).st_size
        if size > MAX_FILE_BYTES:
            raise Unusable(f"is a subtitle file of {size} bytes; {MAX_FILE_BYTES} is the limit")
        text = _decoded(os.pread(fd, size, 0))
    finally:
        os.close(fd)
    head = text[:4096].lstrip()
    if head.startswith("WEBVTT"):
        demuxer = "webvtt"
    elif head.startswith("[Script Info]"):
        demuxer = "ass"
    elif "-->" in head:
        demuxer = "srt"
    else:
        raise Unusable("is no subtitle file (SubRip, WebVTT or ASS); save it as .srt")
    with open_stream(io.BytesIO(text.encode()), demuxer) as container:
        tracks = _tracks(container, list(container.streams.subtitles), 0.0)
    if not tracks:
        raise Unusable("holds no subtitles; save it as .srt again")
    return tracks[0]


def _tracks(container: Any, streams: list[Any], shift_s: float) -> tuple[Track, ...]:
    """``shift_s`` is added to the container's times."""
    readable = [stream for stream in streams if stream.codec_context.name in READ]
    cues: dict[int, list[Cue]] = {stream.index: [] for stream in streams}
    try:
        for packet in container.demux(readable) if readable else ():
            if packet.pts is None or packet.size == 0 or sum(map(len, cues.values())) >= MAX_CUES:
                continue
            text = _text(packet)
            start_s = float(packet.pts * packet.time_base) + shift_s
            if text:
                end_s = start_s + float((packet.duration or 0) * packet.time_base)
                cues[packet.stream.index].append(Cue(start_s, end_s, text))
    except av.error.FFmpegError:
        pass  # what comes before the damage counts
    return tuple(
        Track(
            stream.codec_context.name,
            str(stream.metadata.get("language", "")),
            str(stream.metadata.get("title", "")),
            tuple(sorted(cues[stream.index], key=lambda cue: cue.start_s)),
        )
        for stream in streams
    )


def _text(packet: Any) -> str:
    try:
        lines = [rect.dialogue or rect.text for rect in packet.decode()]
    except (av.error.FFmpegError, AttributeError):
        return ""
    return " ".join(_STYLE.sub(" ", b" ".join(lines).decode("utf-8", "replace")).split())


def _decoded(data: bytes) -> str:
    """UTF-8 or UTF-16 where that is what it is, and else what most old files are in."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")
