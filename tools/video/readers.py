"""How many readers take the frames of one long video side by side, each in a part of its own."""

from __future__ import annotations

import os

from keyeloop.runtime.evidence import Source

READERS_BYTES = 280 << 20
"""For all readers that work side by side, so that a run of an hour stays under 500 MB with everything in it."""
READER_BYTES, READER_BYTES_A_PIXEL = 5 << 20, 18
"""What one takes: its index, and some twelve frames of 1.5 bytes a pixel that are decoded, built on or converted."""
LEAST_MOMENTS, LEAST_S = 8, 30.0
"""A part of a video that is worth a reader of its own: moments in it, and seconds."""


def readers_for(source: Source, moments: int, cores: int | None = None) -> int:
    """How many readers take so many moments of a video side by side: a core each, in parts that are worth it.

    ``cores`` None are those that this process may use. Few where frames are large, as all of them together have a bound
    of memory.
    """
    each_bytes = READER_BYTES + READER_BYTES_A_PIXEL * source.width * source.height
    parts = min(moments // LEAST_MOMENTS, int((source.duration_s or 0.0) // LEAST_S))
    return max(1, min(cores or _cores(), parts, READERS_BYTES // each_bytes))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
