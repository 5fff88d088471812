"""One open video: what it is, and the frame on screen at any moment of it."""

from __future__ import annotations

import itertools
import math
import os
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, VideoReformatter

from keyeloop.tools.video.child.colour import HLG, PQ, to_screen
from keyeloop.tools.video.child.errors import Unusable
from keyeloop.tools.video.child.fields import woven
from keyeloop.tools.video.child.picture import Orientation, Pixels, cut
from keyeloop.tools.video.child.recent import RecentFrames, Shown
from keyeloop.tools.video.child.reel import Reel
from keyeloop.tools.video.child.tape import Tape

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
        try:
            self._tape = Tape(fd, demuxer)
            self._reel = Reel(self._tape, iter(()), spares=False)
            first = self._first_frame(ORDER_CHECK_FRAMES if demuxer == "avi" else 1)
            self._first_ticks = _ticks(first)
            self._orientation = _orientation(first)
            self.facts = self._measure(first)
        except BaseException:
            os.close(fd)
            raise

    def close(self) -> None:
        """Free the decoder and the descriptor."""
        self._reel = Reel(self._tape, iter(()), spares=False)
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
        samples = self._samples(shown)
        return samples if samples.dtype == np.uint8 else to_screen(samples, shown.frame.color_trc)

    def picture(self, shown: Shown, region: tuple[float, float, float, float], size: tuple[int, int]) -> Pixels:
        """``region`` of a frame (displayed pixels) resized to ``size`` (width, height): upright RGB pixels."""
        samples = cut(self._samples(shown), (self.facts.width, self.facts.height), region, size)
        return samples if samples.dtype == np.uint8 else to_screen(samples, shown.frame.color_trc)

    def _samples(self, shown: Shown) -> Any:
        """Upright RGB without combs: of uint8, or of uint16 and still to be brought to a screen's range."""
        frame = shown.frame
        if frame.color_trc in (PQ, HLG):
            picture = self._colours.reformat(frame, format="rgb48le", src_colorspace=Colorspace.BT2020, threads=1)
        else:
            picture = self._colours.reformat(frame, format="rgb24", threads=1)
        samples: Any = picture.to_ndarray()
        return self._orientation.apply(woven(samples) if frame.interlaced_frame else samples)

    def _decode(self, ticks: int) -> Shown:
        reel = self._reel
        if reel.now is None or _ticks(reel.now) > ticks or self._tape.seek_is_nearer(ticks):
            found = self._approach(ticks, spares=True)
        else:
            found = reel.advance(ticks)
        if not found:
            self._approach(ticks, spares=False)
        now = self._reel.now
        if now is None:
            raise Unusable(
                "cannot be decoded a second time: it changed or is damaged; begin a new run with a sound copy"
            )
        begin = _ticks(now)
        return Shown(begin, self._reel.until(ticks), float((begin - self._first_ticks) * self._tape.tick), now)

    def _approach(self, ticks: int, *, spares: bool) -> bool:
        """Begin at a key frame before ``ticks`` and go on to there; False where that led nowhere."""
        for packets in self._tape.approaches(ticks, self._first_ticks):
            self._reel = Reel(self._tape, packets, spares=spares)
            found = self._reel.advance(ticks)
            if self._reel.now is not None and _ticks(self._reel.now) <= ticks:
                return found
        return False

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
