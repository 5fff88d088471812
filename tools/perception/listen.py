"""The tool that hears what is said in a video."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keyeloop.runtime.content import Part, Text, ToolSpec
from keyeloop.runtime.errors import ConfigError, ToolError
from keyeloop.tools.base import ToolContext
from keyeloop.tools.confined.errors import Unusable
from keyeloop.tools.outside import visible
from keyeloop.tools.perception.listener import Heard, Listener
from keyeloop.tools.perception.whisper import FETCH, WhisperListener
from keyeloop.tools.video.clip import check_span
from keyeloop.tools.video.frames import close_decoder, decoder_of, find_source
from keyeloop.tools.video.sound import Samples, hear

MAX_SPAN_S = 600.0
"""Seconds of sound that one call listens to; from where to go on is told."""
PATIENCE_S = 240.0
"""Seconds after which a call ends with what it has heard."""
MAX_CHARS = 6_000

SPEC = ToolSpec(
    "listen",
    "Hear what is said in a video between two times, with the time of each line.",
    {
        "type": "object",
        "properties": {
            "video": {"type": "string", "description": "name of the video"},
            "start_s": {"type": "number", "description": "seconds, default 0"},
            "end_s": {"type": "number", "description": "seconds, default the end"},
            "language": {"type": "string", "description": "such as en; default what is heard"},
        },
        "required": ["video"],
    },
)


class Listen:
    """``listen(video, start_s, end_s, language)``: what is said, with times. Sound is decoded in the guarded child."""

    spec = SPEC
    timeout_s = 300.0

    def __init__(self, listener: Listener | str | Path | None = None) -> None:
        """A Listener, or the Whisper model that faster-whisper shall use: its folder, or a name fetched before.

        Raises ConfigError without one, for one that is not on this machine, and without the extra ``listen``.
        """
        if listener is None:
            raise ConfigError(
                "listen needs a Whisper model on this machine: name its folder, as Listen('whisper-small') or "
                f'--tool listen:whisper-small; pip install "keyeloop[listen]", then fetch it once: {FETCH}'
            )
        if isinstance(listener, str | Path):
            listener = WhisperListener(listener)
        self._listener = listener
        self._turn = threading.Lock()

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> tuple[Part, ...]:
        """One line a stretch of speech: ``12.0-14.5 s: words (0.93)``, with how sure that is. Raises ToolError."""
        source = find_source(context, str(arguments["video"]), "video")
        start_s = float(arguments.get("start_s", 0.0))
        end_s = check_span(source, start_s, float(arguments.get("end_s", max(start_s, source.duration_s or 0.0))), 1)
        until_s = min(end_s, start_s + MAX_SPAN_S)
        if until_s <= start_s:
            raise ToolError(f"from {start_s:.1f} s to {end_s:.1f} s nothing is to be heard: give a later end_s")
        language = str(arguments.get("language", "")).strip().casefold() or None
        decoder = decoder_of(context)
        try:
            sound = await asyncio.to_thread(hear, source.path, start_s, until_s, decoder)
        except Unusable as error:
            raise ToolError(f"{source.name} {error}") from None
        except asyncio.CancelledError:
            decoder.stop()
            raise
        stop = threading.Event()
        try:
            heard, to_s = await asyncio.to_thread(self._listen, sound, language, stop, (start_s, until_s), context)
        except asyncio.CancelledError:
            stop.set()
            raise
        return (Text(_told(source.name, heard, start_s, to_s, end_s)),)

    async def close(self, context: ToolContext) -> None:
        """End the run's decoder; idempotent."""
        close_decoder(context)

    def _listen(
        self,
        sound: Samples,
        language: str | None,
        stop: threading.Event,
        span_s: tuple[float, float],
        context: ToolContext,
    ) -> tuple[list[Heard], float]:
        """What was said, at the video's times, and until when was listened."""
        start_s, until_s = span_s
        heard: list[Heard] = []
        with self._turn:
            patience_s = time.monotonic() + PATIENCE_S
            for one in () if stop.is_set() else self._listener.listen(sound, language):
                text = " ".join(visible(one.text).split())
                first_s, last_s = min(start_s + max(0.0, one.start_s), until_s), min(start_s + one.end_s, until_s)
                if text:
                    heard.append(Heard(first_s, max(first_s, last_s), text, one.confidence))
                context.report(f"heard until {last_s:.0f} s", last_s - start_s, until_s - start_s)
                if stop.is_set() or time.monotonic() > patience_s:
                    return heard, last_s
        return heard, until_s


def _told(name: str, heard: Sequence[Heard], start_s: float, to_s: float, end_s: float) -> str:
    lines: list[str] = []
    size = 0
    for one in heard:
        line = f"{one.start_s:.1f}-{one.end_s:.1f} s: {one.text} ({one.confidence:.2f})"
        size += len(line) + 1
        if lines and size > MAX_CHARS:
            to_s = one.start_s
            break
        lines.append(line[:MAX_CHARS])
    more = [f"(not heard yet: from {to_s:.1f} s to {end_s:.1f} s; ask again with start_s {to_s:.1f})"]
    head = f"{name}, heard from {start_s:.1f} s to {to_s:.1f} s"
    return "\n".join([f"{head}:" if lines else f"{head}: no speech", *lines, *(more if to_s < end_s - 0.05 else [])])
