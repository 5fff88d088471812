"""What people read of a run: calls, results, times and tokens in words, without colours."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise

from keyeloop.runtime.citations import SEEN_WITHIN_S, format_time
from keyeloop.runtime.content import Image, Part, Text, ToolCall, Usage, Video
from keyeloop.runtime.evidence import Citation, Source
from keyeloop.runtime.trajectory import Span

STRIP_CELLS = 60
CLOSE_S = 2 * SEEN_WITHIN_S
"""Between two views at most this far apart every moment counts as looked at."""


def clean(text: str) -> str:
    """Text of a model, a tool or a page with its control characters shown, so that none can steer a terminal."""
    return "".join(char if char in "\n\t" or char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def clipped(text: str, limit: int = 400) -> str:
    """One line of at most ``limit`` characters."""
    line = " ".join(clean(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def call_words(call: ToolCall, limit: int | None = 400) -> str:
    """``clip_video(video="video-1", start_s=83)``; all of it where there is no limit."""
    given = (f"{name}={json.dumps(value, ensure_ascii=False, default=str)}" for name, value in call.arguments.items())
    words = f"{call.name}({', '.join(given)})"
    return clipped(words, len(words) * 4 if limit is None else limit)


def parts_words(parts: Iterable[Part], limit: int = 400) -> str:
    """The text of a result, and how many pictures came with it."""
    texts, pictures = [], 0
    for part in parts:
        match part:
            case Text(text):
                texts.append(text)
            case Image():
                pictures += 1
            case Video(frames):
                pictures += len(frames)
    shown = f" + {counted(pictures, 'picture')}" if pictures else ""
    return clipped(" ".join(texts), limit) + shown


def usage_words(usage: Usage) -> str:
    """``1,400 tokens in (1,100 cached, 90 of pictures), 60 out (20 thinking)``, and the cost where it is known."""
    out = f"{usage.output_tokens:,} out"
    thinking = f" ({usage.reasoning_tokens:,} thinking)" if usage.reasoning_tokens else ""
    cost = "" if usage.cost is None else f", cost {usage.cost:.4g}"
    return (
        f"{usage.input_tokens:,} tokens in ({usage.cached_tokens:,} cached, {usage.visual_tokens:,} of pictures), "
        f"{out}{thinking}{cost}"
    )


def source_words(source: Source) -> str:
    """``video-1: board.mp4, 0:01:00.000, 1280x720``."""
    length = "" if source.duration_s is None else f"{format_time(source.duration_s)}, "
    return f"{source.name}: {clean(source.path)}, {length}{source.width}x{source.height}"


def citation_words(citation: Citation) -> str:
    """``[f1] video-1 at 0:01:23.000, box 310,200 to 640,460 px``, and whether the run never looked there."""
    where = citation.source or "nothing that was shown"
    if citation.time_s is not None:
        where += f" at {format_time(citation.time_s)}"
    if citation.region is not None:
        box = citation.region
        where += f", box {box.x0:.0f},{box.y0:.0f} to {box.x1:.0f},{box.y1:.0f} px"
    return clean(f"{citation.text} {where}{'' if citation.seen else ' (unseen: the run never looked there)'}")


def strip(spans: Sequence[Span], duration_s: float, cells: int = STRIP_CELLS) -> str:
    """A video's length as a line, with a block wherever it was looked at; between moments far apart it was not."""
    line = ["─"] * cells
    for span in spans:
        for earlier, later in pairwise((span.start_s, *span.times_s)):
            since_s = earlier if later - earlier <= CLOSE_S else later
            first, last = (int(min(max(at / duration_s, 0.0), 1.0) * cells) for at in (since_s, later))
            for cell in range(min(first, cells - 1), min(last, cells - 1) + 1):
                line[cell] = "█"
    return "".join(line)


def span_words(span: Span) -> str:
    """``0:01:22.000 to 0:01:24.000 (3 views)``; ``(8 views, up to 500.0 s apart)`` where they are sparse."""
    until = f" to {format_time(span.end_s)}" if span.end_s > span.start_s else ""
    apart = f", up to {span.gap_s:.1f} s apart" if span.gap_s > CLOSE_S else ""
    return f"{format_time(span.start_s)}{until} ({counted(span.views, 'view')}{apart})"


def progress_words(done: float | None, total: float | None) -> str:
    """``3 of 10``, ``3``, or nothing."""
    if done is None:
        return ""
    return f"{done:g}" if total is None else f"{done:g} of {total:g}"


def counted(number: int, noun: str) -> str:
    """``1 view``, ``2 views``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
