"""One open video: what it is, and the frame on screen at any moment of it."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
from av.packet import Packet
from av.video.frame import VideoFrame

from keyeloop.tools.video.child.container import open_container, video_stream
from keyeloop.tools.video.child.errors import Unusable
from keyeloop.tools.video.child.picture import Orientation, Pixels
from keyeloop.tools.video.child.recent import RecentFrames, Shown

TOLERANCE_S = 1e-6
"""A moment this little before a frame's own time shows that frame: a time that went through a float comes back."""
FIRST_STEP_BACK_S = 1.0
READ_ON_S = 5.0
"""Without an index: how far ahead decoding on is taken to be cheaper than seeking."""


@dataclass(frozen=True)
class Facts:
    """Size of a displayed frame in pixels, and seconds from the first frame to the end of the last."""

    width: int
    height: int
    duration_s: float


class VideoReader:
    """Decodes single frames of one file by presentation time; seconds count from the first frame."""

    def __init__(self, fd: int, demuxer: str) -> None:
        """Takes over ``fd``. Raises Unusable when the file holds no frame that can be decoded."""
        self._fd, self._demuxer = fd, demuxer
        self._recent = RecentFrames()
        self._frames: Iterator[VideoFrame] = iter(())
        self._now: VideoFrame | None = None
        self._next: VideoFrame | None = None
        self._fed_ticks = 0
        try:
            self._restart()
            if self._now is None:
                raise Unusable("holds no frame that can be decoded (zero frames, or damaged); record it again")
            self._first_ticks = _ticks(self._now)
            self._tick = Fraction(self._now.time_base)
            self._orientation = _orientation(self._now)
            self.facts = self._measure(self._now)
        except BaseException:
            os.close(fd)
            raise

    def close(self) -> None:
        """Free the decoder and the descriptor."""
        self._frames, self._now, self._next = iter(()), None, None
        self._recent.clear()
        self._container.close()
        os.close(self._fd)

    def shown(self, time_s: float) -> Shown:
        """The frame on screen at ``time_s``: the last one that begins at or before it, the first one before that."""
        seconds = max(Fraction(time_s) + Fraction(TOLERANCE_S), Fraction(0))
        ticks = self._first_ticks + math.floor(seconds / self._tick)
        found = self._recent.find(ticks)
        if found is None:
            if self._now is None or _ticks(self._now) > ticks or self._seek_is_nearer(ticks):
                self._seek(ticks)
            self._read_until(ticks)
            assert self._now is not None
            begin = _ticks(self._now)
            until = None if self._next is None else _ticks(self._next)
            found = Shown(begin, until, float((begin - self._first_ticks) * self._tick), self._now)
            self._recent.add(found)
        return found

    def pixels(self, shown: Shown) -> Pixels:
        """Upright RGB pixels of a frame."""
        return self._orientation.apply(shown.frame.to_ndarray(format="rgb24"))

    def _measure(self, first: VideoFrame) -> Facts:
        aspect = self._stream.sample_aspect_ratio
        width, height = first.width, first.height
        if aspect and Fraction(1, 16) < aspect < 16:
            width = max(1, round(width * aspect))
        if self._orientation.swap:
            width, height = height, width
        end = self._end_ticks()
        return Facts(width, height, float((end - self._first_ticks) * self._tick))

    def _end_ticks(self) -> int:
        """Where the last frame ends, from its packet: a seek to the end, or all packets where that finds none."""
        hint = self._stream.duration
        if hint is None and self._container.duration is not None:
            hint = round(Fraction(self._container.duration, av.time_base) / self._tick)
        end = None
        if hint is not None:
            try:
                self._container.seek(self._first_ticks + hint, stream=self._stream)
                end = self._last_end(self._container.demux(self._stream))
            except av.error.FFmpegError:
                pass
        if end is None or end <= self._first_ticks:
            self._restart()
            end = self._last_end(self._container.demux(self._stream))
        self._frames, self._now, self._next = iter(()), None, None
        rate = self._stream.guessed_rate or self._stream.average_rate
        frame = max(1, round(1 / (rate * self._tick))) if rate else 1
        return max(end or 0, self._first_ticks + frame)

    def _last_end(self, packets: Iterator[Packet]) -> int | None:
        end: int | None = None
        rate = self._stream.guessed_rate or self._stream.average_rate
        try:
            for packet in packets:
                begin = packet.pts if packet.pts is not None else packet.dts
                if begin is None or packet.is_discard or packet.size == 0:
                    continue
                lasts = packet.duration or (round(1 / (rate * self._tick)) if rate else 0)
                end = begin + lasts if end is None else max(end, begin + lasts)
        except av.error.FFmpegError:
            pass
        return end

    def _restart(self) -> None:
        """Begin at the first packet, with everything that the file holds."""
        if hasattr(self, "_container"):
            self._container.close()
        self._container = open_container(self._fd, self._demuxer)
        self._stream = video_stream(self._container)
        self._begin(self._container.demux(self._stream))

    def _begin(self, packets: Iterator[Packet]) -> None:
        self._frames = self._decode(packets)
        self._now = next(self._frames, None)
        self._next = None if self._now is None else next(self._frames, None)

    def _decode(self, packets: Iterator[Packet]) -> Iterator[VideoFrame]:
        """Frames in presentation order; what is damaged is left out, as every player does."""
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                if packet.dts is not None:
                    self._fed_ticks = packet.dts
                for frame in self._stream.decode(packet):
                    if frame.pts is not None or frame.dts is not None:
                        yield frame
            except av.error.EOFError:
                return
            except av.error.InvalidDataError:
                continue
            except av.error.FFmpegError:
                return

    def _read_until(self, ticks: int) -> None:
        while self._next is not None and _ticks(self._next) <= ticks:
            self._now, self._next = self._next, next(self._frames, None)

    def _seek_is_nearer(self, ticks: int) -> bool:
        """Whether a key frame lies between where decoding stands and ``ticks``."""
        ahead = ticks - self._fed_ticks
        if ahead <= 0:
            return False
        index = self._stream.index_entries
        at = index.search_timestamp(ticks, backward=True) if len(index) else -1
        if at >= 0 and index[at].timestamp > self._fed_ticks:
            return True
        whole = at >= 0 and len(index) >= self._stream.frames > 0
        return not whole and ahead * self._tick > READ_ON_S

    def _seek(self, ticks: int) -> None:
        """Stand on a frame at or before ``ticks``, from a key frame that is itself not after it.

        The condition on the key frame matters: frames shown before it but stored after it (open groups of pictures)
        cannot be decoded from there. Where no seek finds such a key frame, decoding begins at the first packet.
        """
        aim, step = ticks, FIRST_STEP_BACK_S
        while aim > self._first_ticks:
            try:
                self._container.seek(aim, stream=self._stream)
                packets = self._container.demux(self._stream)
                key = next((packet for packet in packets if packet.is_keyframe), None)
            except av.error.FFmpegError:
                break
            begin = None if key is None else key.pts
            if key is not None and begin is not None and begin <= ticks:
                self._begin(itertools.chain([key], packets))
                if self._now is not None and _ticks(self._now) <= ticks:
                    return
            earlier = aim if key is None or key.dts is None else min(aim, key.dts)
            aim, step = earlier - max(1, round(Fraction(step) / self._tick)), step * 2
        self._restart()


def _ticks(frame: VideoFrame) -> int:
    return frame.pts if frame.pts is not None else frame.dts


def _orientation(frame: VideoFrame) -> Orientation:
    try:
        matrix = frame.side_data["DISPLAYMATRIX"]
    except KeyError:
        return Orientation()
    return Orientation.from_matrix(bytes(matrix))
