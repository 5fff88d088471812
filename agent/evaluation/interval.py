"""Intervals in answers, measured by temporal intersection over union (tIoU).

The measure and its thresholds are those of temporal grounding (Gao et al. 2017, "TALL: Temporal Activity Localization
via Language Query", recall at tIoU thresholds; ActivityNet's detection task before it).

**What counts of an answer**, in this order: the last pair of times that are joined ("from 83.0 s to 91.5 s",
"1:23-1:31", "[83, 91.5]"); the only two times with a unit or a colon; the only two numbers; the earliest and the
latest of the cited moments. An interval that ends before it begins is none, one time alone is none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from keyeloop.agent.evaluation.score import Said, Score

Interval = tuple[float, float]
"""Start and end in seconds."""
THRESHOLDS = (0.3, 0.5, 0.7)
"""tIoU at which shares are reported."""
RIGHT_AT = 0.5
"""tIoU from which an answer counts as right."""

_NUMBER = r"\d+(?:\.\d+)?"
_SECONDS = r"(?:s|sec|secs|seconds?)\b"
_CLOCK = r"(?:\d+:)?\d{1,2}:\d{2}(?:\.\d+)?"
_MINUTES = rf"(?:\d+\s*(?:h|hours?)\s*)?\d+\s*(?:m|min|mins|minutes?)\b(?:\s*(?:and\s+)?{_NUMBER}\s*{_SECONDS})?"
_UNITED = rf"(?:{_CLOCK}|{_MINUTES}|{_NUMBER}\s*{_SECONDS})"
_EDGE = r"(?<![\w.:-])"
_TIME = rf"(?:{_UNITED}|{_NUMBER})(?![\w:]|\.\d)"
_WORDS = r"(?:up\s+)?to|until|till|through|thru|and|[-–—~→,;…]|->|\.{2,3}"
_JOIN = rf"""["')\]]*\s*(?:{_WORDS})\s*(?:about|around|roughly|at)?\s*"""
_PAIR = re.compile(rf"{_EDGE}({_TIME}){_JOIN}({_TIME})", re.IGNORECASE)
_ALONE = re.compile(rf"(?<![\w.:]){_TIME}", re.IGNORECASE)
_PARTS = re.compile(rf"(?:(\d+)\s*h\w*\s*)?(\d+)\s*m\w*(?:\s*(?:and\s+)?({_NUMBER})\s*s\w*)?", re.IGNORECASE)


def score_interval(wanted: Interval, said: Said) -> Score:
    """Right from a tIoU of 0.5; an answer without an interval has a tIoU of 0."""
    found = read_interval(said.plain, said.cited_s)
    if found is None:
        return Score(False, "", 0.0)
    measured = tiou(wanted, found)
    return Score(measured >= RIGHT_AT, f"{found[0]:g} to {found[1]:g} s", measured)


def tiou(one: Interval, other: Interval) -> float:
    """Overlap of two intervals by what they cover together, from 0 to 1; 0 where either has no length."""
    overlap = min(one[1], other[1]) - max(one[0], other[0])
    if overlap <= 0:
        return 0.0
    return min(1.0, overlap / (max(one[1], other[1]) - min(one[0], other[0])))


def read_interval(text: str, cited_s: Sequence[float] = ()) -> Interval | None:
    """The interval that an answer (without its citations) names, or that its cited moments span."""
    pairs = [(_seconds(pair[1]), _seconds(pair[2])) for pair in _pairs(text)]
    sound = [(start_s, end_s) for start_s, end_s in pairs if start_s < end_s]
    if sound:
        return sound[-1]
    times = [found[0] for found in _ALONE.finditer(text)]
    united = [time for time in times if re.fullmatch(_UNITED, time, re.IGNORECASE)]
    for only in (united, times):
        if len(only) == 2:
            start_s, end_s = (_seconds(time) for time in only)
            return (start_s, end_s) if start_s < end_s else None
    if not times and cited_s and min(cited_s) < max(cited_s):
        return min(cited_s), max(cited_s)
    return None


def _pairs(text: str) -> list[re.Match[str]]:
    """Joined pairs, also where one's end is another's beginning."""
    found, at = [], 0
    while (pair := _PAIR.search(text, at)) is not None:
        found.append(pair)
        at = pair.start(2)
    return found


def _seconds(time: str) -> float:
    if ":" in time:
        total = 0.0
        for part in time.split(":"):
            total = total * 60 + float(part)
        return total
    if parts := _PARTS.fullmatch(time.strip()):
        hours, minutes, seconds = parts.groups()
        return int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds or 0)
    return float(re.match(_NUMBER, time)[0])  # type: ignore[index]
