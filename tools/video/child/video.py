"""One open video: what it is, and the frame on screen at any moment of it."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from keyeloop.tools.video.child.errors import Unusable
from keyeloop.tools.video.child.picture import Orientation, Pixels
from keyeloop.tools.video.child.recent import RecentFrames, Shown
from keyeloop.tools.video.child.tape import Packets, Tape

TOLERANCE_S = 1e-6
"""A moment this little before a frame's own time shows that frame: a time that went through a float comes back."""
ORDER_CHECK_FRAMES = 32
MAX_FPS = 1000


@dataclass(frozen=True)
class Facts:
    """Size of a displayed frame in pixels, and seconds from the first frame to the end of the last."""

    width: int
    height: int
    duration_s: float
    fps: float | None
    """Frames a second as the file tells them, on average where they vary; None where it tells nothing credible."""


class VideoReader:
    """Decodes single frames of one file by presentation time; seconds count from the first frame."""

    def __init__(self, fd: int, demuxer: str) -> None:
        """Takes over ``fd``. Raises Unusable when the file holds no frame that can be decoded."""
        self._fd = fd
        self._recent = RecentFrames()
        self._colours = VideoReformatter()  # one for all frames: each frame's own would keep threads while it is cached
        self._frames: Iterator[VideoFrame] = iter(())
        self._now: VideoFrame | None = None
        self._next: VideoFrame | None = None
        try:
            self._tape = Tape(fd, demuxer)
            first = self._first_frame(ORDER_CHECK_FRAMES if demuxer == "avi" else 1)
            self._first_ticks = _ticks(first)
            self._orientation = _orientation(first)
            self.facts = self._measure(first)
        except BaseException:
            os.close(fd)
            raise

    def close(self) -> None:
        """Free the decoder and the descriptor."""
        self._frames, self._now, self._next = iter(()), None, None
        self._recent.clear()
        self._tape.close()
        os.close(self._fd)

    def shown(self, time_s: float) -> Shown:
        """The frame on screen at ``time_s``: the last one that begins at or before it, the first one before that."""
        seconds = max(Fraction(time_s) + Fraction(TOLERANCE_S), Fraction(0))
        ticks = self._first_ticks + math.floor(seconds / self._tape.tick)
        found = self._recent.find(ticks)
        if found is None:
            found = self._decode(ticks)
            self._recent.add(found)
        return found

    def pixels(self, shown: Shown) -> Pixels:
        """Upright RGB pixels of a frame."""
        picture = self._colours.reformat(shown.frame, format="rgb24", threads=1)
        return self._orientation.apply(np.asarray(picture.to_ndarray(), dtype=np.uint8))

    def _decode(self, ticks: int) -> Shown:
        if self._now is None or _ticks(self._now) > ticks or self._tape.seek_is_nearer(ticks):
            for packets in self._tape.approaches(ticks, self._first_ticks):
                self._begin(packets)
                if self._now is not None and _ticks(self._now) <= ticks:
                    break
        while self._next is not None and _ticks(self._next) <= ticks:
            self._now, self._next = self._next, next(self._frames, None)
        if self._now is None:
            raise Unusable(
                "cannot be decoded a second time: it changed or is damaged; begin a new run with a sound copy"
            )
        begin = _ticks(self._now)
        until = None if self._next is None else _ticks(self._next)
        return Shown(begin, until, float((begin - self._first_ticks) * self._tape.tick), self._now)

    def _begin(self, packets: Packets) -> None:
        self._frames = self._tape.decode(packets)
        self._now = next(self._frames, None)
        self._next = next(self._frames, None)

    def _first_frame(self, check: int) -> VideoFrame:
        frames = list(itertools.islice(self._tape.decode(self._tape.rewind()), check))
        if not frames:
            raise Unusable("holds no frame that can be decoded (zero frames, or damaged); record it again")
        if any(_ticks(one) >= _ticks(other) for one, other in itertools.pairwise(frames)):
            raise Unusable("does not tell when its frames are shown (reordered frames in avi); convert it to mp4")
        return frames[0]

    def _measure(self, first: VideoFrame) -> Facts:
        aspect = self._tape.stream.sample_aspect_ratio
        width, height = first.width, first.height
        if aspect and Fraction(1, 16) < aspect < 16:
            width = max(1, round(width * aspect))
        if self._orientation.swap:
            width, height = height, width
        length = self._tape.end_ticks(self._first_ticks) - self._first_ticks
        rate = self._tape.stream.average_rate or self._tape.stream.guessed_rate
        fps = float(rate) if rate and 0 < rate <= MAX_FPS else None
        return Facts(width, height, float(length * self._tape.tick), fps)


def _ticks(frame: VideoFrame) -> int:
    return frame.pts or 0


def _orientation(frame: VideoFrame) -> Orientation:
    try:
        matrix: Any = frame.side_data["DISPLAYMATRIX"]  # type: ignore[typeddict-item]  # the stub names another mapping
    except KeyError:
        return Orientation()
    return Orientation.from_matrix(bytes(matrix))
