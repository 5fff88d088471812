"""Frames decoded lately, so that a zoom into a frame just shown costs no second decoding."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from av.video.frame import VideoFrame

KEEP_BYTES = 6 << 20


@dataclass(frozen=True)
class Shown:
    """A decoded frame and the span of stream ticks in which it is on screen; ``until`` None means to the end."""

    begin: int
    until: int | None
    time_s: float
    """Its own presentation time, in seconds from the first frame."""
    frame: VideoFrame


class RecentFrames:
    """The frames used last, within a bound of bytes; the very last one in any case, unless there is no room at all."""

    def __init__(self, keep_bytes: int = KEEP_BYTES) -> None:
        self._keep_bytes = keep_bytes
        self._bytes = 0
        self._frames: OrderedDict[int, Shown] = OrderedDict()

    def find(self, ticks: int) -> Shown | None:
        """The frame on screen at ``ticks``, if it is still here."""
        for shown in self._frames.values():
            if shown.begin <= ticks and (shown.until is None or ticks < shown.until):
                self._frames.move_to_end(shown.begin)
                return shown
        return None

    def add(self, shown: Shown) -> None:
        """Keep a frame; the ones used longest ago make room."""
        if self._keep_bytes == 0:
            return
        known = self._frames.pop(shown.begin, None)
        self._bytes -= 0 if known is None else _size(known)
        self._frames[shown.begin] = shown
        self._bytes += _size(shown)
        while self._bytes > self._keep_bytes and len(self._frames) > 1:
            self._bytes -= _size(self._frames.popitem(last=False)[1])

    def clear(self) -> None:
        """Forget all."""
        self._frames.clear()
        self._bytes = 0


def _size(shown: Shown) -> int:
    return sum(plane.buffer_size for plane in shown.frame.planes)
