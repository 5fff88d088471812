"""The tool that reads what is said in a video, from its subtitles; no model is needed."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any

from keyeloop.runtime.content import Part, Text, ToolSpec
from keyeloop.runtime.errors import ToolError
from keyeloop.runtime.evidence import Source
from keyeloop.tools.base import ToolContext
from keyeloop.tools.confined.errors import Unusable
from keyeloop.tools.video.child.subtitles import Cue
from keyeloop.tools.video.clip import check_span
from keyeloop.tools.video.frames import close_decoder, decoder_of, find_source
from keyeloop.tools.video.words import Words, read_words

MAX_CHARS = 6_000
"""Of one result; the rest is told with the time from which to ask for it."""
_KEPT = "video.words"

SPEC = ToolSpec(
    "transcript",
    "Read the subtitles of a video with their times.",
    {
        "type": "object",
        "properties": {
            "video": {"type": "string", "description": "name of the video"},
            "start_s": {"type": "number", "description": "seconds, default 0"},
            "end_s": {"type": "number", "description": "seconds, default the end"},
            "contains": {"type": "string", "description": "only lines with these words"},
            "language": {"type": "string", "description": "such as en, where there are several"},
        },
        "required": ["video"],
    },
)


class Transcript:
    """``transcript(video, start_s, end_s, contains, language)``: subtitles inside a video or beside it, with times."""

    spec = SPEC
    timeout_s = 300.0

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> tuple[Part, ...]:
        """One line a cue: ``12.0-14.5 s: words``. Raises ToolError where there is nothing to read."""
        source = find_source(context, str(arguments["video"]), "video")
        start_s, end_s = float(arguments.get("start_s", 0.0)), float(arguments.get("end_s", math.inf))
        check_span(source, start_s, min(end_s, source.duration_s or 0.0) if end_s == math.inf else end_s, 1)
        tracks = await _tracks(context, source)
        track = _chosen(source, tracks, str(arguments.get("language", "")))
        words = str(arguments.get("contains", "")).casefold()
        cues = [cue for cue in track.cues if cue.end_s >= start_s and cue.start_s <= end_s]
        cues = [cue for cue in cues if words in cue.text.casefold()]
        others = ", ".join(_named(other) for other in tracks if other is not track)
        head = f"{source.name}, {_named(track)}" + (f" (also: {others})" if others else "")
        if not cues:
            said = f" with {arguments['contains']!r}" if words else ""
            return (Text(f"{head}: no line{said} from {start_s:.1f} s to {min(end_s, source.duration_s or 0):.1f} s"),)
        return (Text(f"{head}:\n{_lines(cues)}"),)

    async def close(self, context: ToolContext) -> None:
        """End the run's decoder; idempotent."""
        close_decoder(context)


async def _tracks(context: ToolContext, source: Source) -> tuple[Words, ...]:
    kept: dict[str, tuple[Words, ...]] = context.state.setdefault(_KEPT, {})
    if source.name not in kept:
        decoder = decoder_of(context)
        try:
            kept[source.name] = await asyncio.to_thread(read_words, source.path, decoder)
        except Unusable as error:
            raise ToolError(f"{source.name} {error}") from None
        except asyncio.CancelledError:
            decoder.stop()
            raise
    return kept[source.name]


def _chosen(source: Source, tracks: Sequence[Words], language: str) -> Words:
    readable = [track for track in tracks if track.cues]
    if not readable:
        why = "".join(f"; {one.origin} {one.problem}" for one in tracks)
        raise ToolError(f"{source.name} has no subtitles in it or beside it{why}: look at frames instead")
    wanted = language.casefold()
    fitting = [track for track in readable if not wanted or track.language.casefold().startswith(wanted)]
    if not fitting:
        fitting = [track for track in readable if wanted.startswith(track.language.casefold()) and track.language]
    if not fitting:
        known = ", ".join(_named(track) for track in readable)
        raise ToolError(f"{source.name} has no subtitles in {language!r}; there are: {known}")
    return fitting[0]


def _named(track: Words) -> str:
    told = ", ".join(word for word in (track.language, track.title) if word)
    return f"{track.origin} ({told})" if told else track.origin


def _lines(cues: Sequence[Cue]) -> str:
    lines: list[str] = []
    size = 0
    for place, cue in enumerate(cues):
        line = f"{cue.start_s:.1f}-{cue.end_s:.1f} s: {cue.text}"
        size += len(line) + 1
        if lines and size > MAX_CHARS:
            lines.append(f"({len(cues) - place} more lines: ask again with start_s {cue.start_s:.1f})")
            break
        lines.append(line[:MAX_CHARS])
    return "\n".join(lines)
