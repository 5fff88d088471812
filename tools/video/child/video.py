"""One open video: what it is, and the frame on screen at any moment of it."""

from __future__ import annotations

import copy
import itertools
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, VideoReformatter
from av.video.stream import VideoStream

from keyeloop.tools.confined.errors import Unusable
from keyeloop.tools.video.child.colour import HLG, PQ, to_screen
from keyeloop.tools.video.child.container import MAX_THREADS, open_container
from keyeloop.tools.video.child.counted import BARE, CountedTape
from keyeloop.tools.video.child.fields import woven
from keyeloop.tools.video.child.picture import Orientation, Pixels, cut
from keyeloop.tools.video.child.recent import RecentFrames, Shown
from keyeloop.tools.video.child.reel import Reel
from keyeloop.tools.video.child.tape import Tape

TOLERANCE_S = 1e-6
"""A moment this little before a frame's own time shows that frame: a time that went through a float comes back."""
ORDER_CHECK_FRAMES = 32
MAX_FPS = 1000
MOST_READERS = 16
KEYS_A_READER = 4


@dataclass(frozen=True)
class Facts:
    """Size of a displayed frame in pixels, and seconds from the first frame to the end of the last."""

    width: int
    height: int
    duration_s: float
    fps: float | None
    """Frames a second as the file tells them, on average where they vary; None where it tells nothing credible."""
    note: str = ""
    """What a person should know of its times; empty where the file tells them."""


class VideoReader:
    """Decodes single frames of one file by presentation time; seconds count from the first frame."""

    def __init__(self, fd: int, demuxer: str) -> None:
        """Takes over ``fd``. Raises Unusable when the file holds no frame that can be decoded."""
        self._fd, self._demuxer = fd, demuxer
        self._recent = RecentFrames()
        self._colours = VideoReformatter()  # one for all frames: each frame's own would keep threads while it is cached
        try:
            self._tape = CountedTape(fd, demuxer) if demuxer in BARE else Tape(fd, demuxer)
            frames = list(self._first_frames(ORDER_CHECK_FRAMES if demuxer == "avi" else 1))
            if any(_ticks(one) >= _ticks(other) for one, other in itertools.pairwise(frames)):
                self._tape.close()
                self._tape = CountedTape(fd, demuxer)
                frames = list(self._first_frames(1))
            if not frames:
                raise Unusable("holds no frame that can be decoded (zero frames, or damaged); record it again")
            first = frames[0]
            del frames
            self._reel = Reel(self._tape, iter(()), spares=False)
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

    def twin(self) -> VideoReader:
        """Another reader of the same file, at a position of its own and of one thread; nothing is measured again."""
        made = copy.copy(self)
        made._fd = os.dup(self._fd)
        try:
            made._tape = self._tape.twin(made._fd)
        except BaseException:
            os.close(made._fd)
            raise
        made._reel = Reel(made._tape, iter(()), spares=False)
        made._recent, made._colours = RecentFrames(keep_bytes=0), VideoReformatter()
        return made

    @contextmanager
    def one_thread(self) -> Iterator[None]:
        """Decode with one thread meanwhile and keep no frame, which takes the least work and memory."""
        self._begin_anew(1, RecentFrames(keep_bytes=0))
        try:
            yield
        finally:
            self._begin_anew(MAX_THREADS, RecentFrames())

    def _begin_anew(self, threads: int, recent: RecentFrames) -> None:
        self._recent = recent
        self._tape.reopen(threads)
        self._reel = Reel(self._tape, iter(()), spares=False)

    def useful_readers(self) -> int:
        """How many readers side by side are faster than one: each wants key frames of its own to begin at."""
        keys = self._tape.key_frames()
        return MOST_READERS if keys is None else max(1, min(MOST_READERS, keys // KEYS_A_READER))

    def shown(self, time_s: float) -> Shown:
        """The frame on screen at ``time_s``: the last one that begins at or before it, the first one before that."""
        ticks = max(self._first_ticks, self.ticks_of(time_s))
        found = self._recent.find(ticks)
        if found is None:
            found = self._decode(ticks)
            self._recent.add(found)
        return found

    def ticks_of(self, time_s: float, whole: Callable[[Fraction], int] = math.floor) -> int:
        """Seconds from the first frame in the stream's own ticks, rounded down, or up with ``math.ceil``."""
        slack = Fraction(TOLERANCE_S) * (1 if whole is math.floor else -1)
        return self._first_ticks + whole((Fraction(time_s) + slack) / self._tape.tick)

    def seconds_of(self, ticks: int) -> float:
        """The inverse of :meth:`ticks_of`."""
        return float((ticks - self._first_ticks) * self._tape.tick)

    def key_frame(self, time_s: float) -> Shown:
        """The key frame at or before ``time_s``: it costs the decoding of one frame, however long the video is."""
        ticks = max(self._first_ticks, self.ticks_of(time_s))
        self._reel = Reel(self._tape, iter(()), spares=False)  # where it stood is left
        for packets in self._tape.approaches(ticks, self._first_ticks):
            packet = self._tape.read(packets)
            frames = [] if packet is None else [*self._tape.feed(packet), *self._tape.drain()]
            if frames and self._first_ticks <= _ticks(frames[0]) <= ticks:
                begin = _ticks(frames[0])
                if self.counted and begin == self._first_ticks:
                    return self.shown(0.0)  # what comes out first need not be what is shown first
                return Shown(begin, begin + 1, self.seconds_of(begin), frames[0])
        return self.shown(time_s)

    def frames(self, begin: int) -> Iterator[VideoFrame]:
        """All frames from the one that begins at ``begin`` ticks on, while nothing else is asked of the reader."""
        self._reel = Reel(self._tape, iter(()), spares=False)
        for packets in self._tape.approaches(begin, self._first_ticks):
            frames = self._tape.decode(packets)
            first = next((frame for frame in frames if _ticks(frame) >= begin), None)
            if first is not None and _ticks(first) == begin:
                return itertools.chain([first], frames)
        return iter(())

    @contextmanager
    def open_again(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        """The same file with all its streams, and the one that is looked at, at positions of their own."""
        container = open_container(self._fd, self._demuxer)
        try:
            stream = container.streams[self._tape.stream.index]
            assert isinstance(stream, VideoStream)
            yield container, stream
        finally:
            container.close()

    @property
    def counted(self) -> bool:
        """Whether frames are counted, because packets do not tell their times."""
        return isinstance(self._tape, CountedTape)

    @property
    def tick(self) -> Fraction:
        """Seconds of one tick of the stream's clock."""
        return self._tape.tick

    @property
    def pixel_shape(self) -> Fraction:
        """Width of a displayed pixel by its height."""
        return Fraction(self.facts.width, self.facts.height) / self._upright_ratio

    def pixels(self, shown: Shown) -> Pixels:
        """Upright RGB pixels of a frame."""
        return self.upright(shown.frame)

    def upright(self, frame: VideoFrame) -> Pixels:
        """The whole of a frame as it is displayed, but for the shape of its pixels."""
        samples = self._samples(frame)
        return samples if samples.dtype == np.uint8 else to_screen(samples, frame.color_trc)

    def picture(self, shown: Shown, region: tuple[float, float, float, float], size: tuple[int, int]) -> Pixels:
        """``region`` of a frame (displayed pixels) resized to ``size`` (width, height): upright RGB pixels."""
        samples = cut(self._samples(shown.frame), (self.facts.width, self.facts.height), region, size)
        return samples if samples.dtype == np.uint8 else to_screen(samples, shown.frame.color_trc)

    def _samples(self, frame: VideoFrame) -> Any:
        """Upright RGB without combs: of uint8, or of uint16 and still to be brought to a screen's range."""
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
        return Shown(begin, self._reel.until(ticks), self.seconds_of(begin), now)

    def _approach(self, ticks: int, *, spares: bool) -> bool:
        """Begin at a key frame before ``ticks`` and go on to there; False where that led nowhere."""
        for packets in self._tape.approaches(ticks, self._first_ticks):
            self._reel = Reel(self._tape, packets, spares=spares)
            found = self._reel.advance(ticks)
            if self._reel.now is not None and _ticks(self._reel.now) <= ticks:
                return found
        return False

    def _first_frames(self, count: int) -> Iterator[VideoFrame]:
        return itertools.islice(self._tape.decode(self._tape.rewind()), count)

    def _measure(self, first: VideoFrame) -> Facts:
        aspect = self._tape.stream.sample_aspect_ratio
        width, height = first.width, first.height
        if aspect and Fraction(1, 16) < aspect < 16:
            width = max(1, round(width * aspect))
        if self._orientation.swap:
            width, height = height, width
        self._upright_ratio = Fraction(
            *((first.height, first.width) if self._orientation.swap else (first.width, first.height))
        )
        self.end_ticks = self._tape.end_ticks(self._first_ticks)
        length = self.end_ticks - self._first_ticks
        rate = self._tape.rate
        fps = float(rate) if rate and 0 < rate <= MAX_FPS else None
        return Facts(width, height, float(length * self._tape.tick), fps, self._tape.note)


def _ticks(frame: VideoFrame) -> int:
    return frame.pts or 0


def _orientation(frame: VideoFrame) -> Orientation:
    try:
        matrix: Any = frame.side_data["DISPLAYMATRIX"]  # type: ignore[typeddict-item]  # the stub names another mapping
    except KeyError:
        return Orientation()
    return Orientation.from_matrix(bytes(matrix))
