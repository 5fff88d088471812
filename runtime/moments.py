"""Moments as people write and read them: ``0:01:23.500``, ``1:23.5``, ``83.5s``."""

from __future__ import annotations

import re

_CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d{2}(?:\.\d+)?)")
_SECONDS = re.compile(r"(\d+(?:\.\d+)?)\s?s")


def format_time(seconds: float) -> str:
    """Presentation seconds as ``h:mm:ss.mmm``, rounded to the millisecond."""
    thousandths = round(abs(seconds) * 1000)
    whole, thousandths = divmod(thousandths, 1000)
    sign = "-" if seconds < 0 and (whole or thousandths) else ""
    return f"{sign}{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}.{thousandths:03d}"


def parse_time(text: str) -> float | None:
    """Seconds of ``h:mm:ss.mmm``, ``m:ss``, ``83.5s`` or ``83.5 s``; None for anything else."""
    if match := _CLOCK.fullmatch(text.strip()):
        hours, minutes, seconds = match.groups()
        return int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds)
    if match := _SECONDS.fullmatch(text.strip()):
        return float(match[1])
    return None
