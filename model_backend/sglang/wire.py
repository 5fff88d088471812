"""How pictures and clips are named in a request to a server that runs this plugin.

A picture is a ``data:image/...;base64,`` URI, or ``keyeloop-media:`` and the sha256 of a file in the media store that
client and server share. A clip is one ``video_url`` part whose URL is ``keyeloop-clip:`` and a JSON object::

    {"type": "video_url", "video_url": {"url": "keyeloop-clip:..."}}     and behind the colon
    {"frames": [[83.0, "keyeloop-media:ab12..."], [84.0, "data:image/jpeg;base64,..."]]}

Each frame is its presentation time in seconds and the name of its picture. Frames and times are the client's choice;
all frames of a clip have one size, and times ascend.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import NamedTuple

from keyeloop.runtime.errors import InputError

REFERENCE = "keyeloop-media:"
CLIP = "keyeloop-clip:"
RAW_REPLIES = "raw_replies"
"""In ``chat_template_kwargs``: replies come and go back as the model wrote them, thinking and calls in the content."""
MAX_FRAMES = 65_536
"""More frames than this in one clip are a mistake; the longest context holds fewer."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


class ClipFrame(NamedTuple):
    """One frame of a clip as it travels."""

    time_s: float
    url: str


def reference(sha256: str) -> str:
    """The name of a stored picture. InputError for what is no sha256 in lower-case hexadecimal."""
    if not _SHA256.fullmatch(sha256):
        raise InputError(f"{sha256[:80]!r} is not a sha256 in lower-case hexadecimal")
    return REFERENCE + sha256


def referenced(url: str) -> str:
    """The sha256 in a reference. InputError for anything that is not exactly ``keyeloop-media:`` and a sha256."""
    sha256 = url.removeprefix(REFERENCE)
    if not url.startswith(REFERENCE) or not _SHA256.fullmatch(sha256):
        raise InputError(f"{url[:80]!r} is no media reference: write {REFERENCE} and a sha256 in hexadecimal")
    return sha256


def clip_url(frames: Iterable[ClipFrame | tuple[float, str]]) -> str:
    """The URL of a clip."""
    return CLIP + json.dumps({"frames": [[time_s, url] for time_s, url in frames]}, separators=(",", ":"))


def read_clip(url: str) -> tuple[ClipFrame, ...]:
    """The frames of a clip's URL, in order. InputError, naming the frame, for what :func:`clip_url` does not write."""
    if not url.startswith(CLIP):
        raise InputError(f"{url[:80]!r} is no clip: a video is {CLIP} and JSON with its frames and their times")
    try:
        told = json.loads(url.removeprefix(CLIP))
    except (ValueError, RecursionError):
        raise InputError(f"a clip's {CLIP} is not followed by JSON") from None
    rows = told.get("frames") if isinstance(told, dict) and set(told) == {"frames"} else None
    if not isinstance(rows, list) or not 1 <= len(rows) <= MAX_FRAMES:
        raise InputError(f'a clip is {{"frames": [[seconds, picture], ...]}} with 1 to {MAX_FRAMES} frames')
    frames: list[ClipFrame] = []
    for number, row in enumerate(rows, 1):
        if not isinstance(row, list) or len(row) != 2 or not isinstance(row[1], str) or not _is_time(row[0]):
            raise InputError(f"frame {number} of a clip is not [seconds, picture]")
        if frames and row[0] < frames[-1].time_s:
            raise InputError(f"frame {number} of a clip at {row[0]} s stands behind one at {frames[-1].time_s} s")
        frames.append(ClipFrame(float(row[0]), row[1]))
    return tuple(frames)


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
