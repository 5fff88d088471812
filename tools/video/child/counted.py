"""Streams that do not tell when their frames are shown: bare H.264 and H.265, and avi files that reorder them.

Frames are counted instead, in the order in which a full decoding gives them, from the first one that can be decoded.
Decoding begins at pictures from which on nothing older is used (IDR, and H.265's CRA). Before such a picture every
packet has given one frame, and packets say which of those that follow it are lost (RASL, ITU-T H.265 table 7-1). Other
codecs (MPEG-4 in avi) are decoded from the beginning.
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_right
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import av
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from keyeloop.tools.confined.errors import Unusable
from keyeloop.tools.video.child.container import MAX_THREADS
from keyeloop.tools.video.child.tape import SEEK_COST_FRAMES, Packets, Tape

BARE = frozenset({"h264", "hevc"})
"""Demuxers of streams without a container."""
HEAD_BYTES = 4096
CHECKED_PACKETS = 64
_UNIT = re.compile(rb"\0\0\x01(.)", re.DOTALL)
_IDR, _RADL, _RASL, _H265_STARTS = 5, (6, 7), (8, 9), (19, 20, 21)
_H264_PICTURES, _H265_PICTURES = range(1, 6), range(32)


class _Start(NamedTuple):
    """A packet that decoding can begin at."""

    number: int
    """Of the packet, counted from the first start."""
    first: int
    """Number of the frame that comes out first."""
    place: int
    """Where it lies: a byte of a bare stream, a time of an avi."""


class _Index(NamedTuple):
    starts: tuple[_Start, ...]
    packets: int


class CountedTape(Tape):
    """As :class:`Tape`; a tick is one frame at the stream's rate."""

    def __init__(self, fd: int, demuxer: str, threads: int = MAX_THREADS, index: _Index | None = None) -> None:
        """Reads the whole file once, unless another tape's ``index`` is given. Raises Unusable."""
        super().__init__(fd, demuxer, threads)
        told = self.stream.codec_context.framerate if demuxer in BARE else self.stream.average_rate
        self.tick = 1 / Fraction(told or self.stream.guessed_rate or 25)
        per_s = f"{float(self.rate):.6g} a second, " + (
            "as the file tells" if told else "as the file tells nothing else"
        )
        self.note = f"its frames bear no times, so they are counted: {per_s}"
        self._fed = self._number = self._given = 0
        self._index = index or self._scan()
        if index is None:
            self._require_one_frame_a_packet()

    @property
    def rate(self) -> Fraction:
        """Frames a second."""
        return 1 / self.tick

    def twin(self, fd: int) -> CountedTape:
        return CountedTape(fd, self._demuxer, 1, self._index)

    def rewind(self) -> Packets:
        return self._from(self._index.starts[0], self._again())

    def approaches(self, ticks: int, first_ticks: int) -> Iterator[Packets]:
        starts = self._index.starts
        for start in reversed(starts[1 : bisect_right(starts, ticks, key=lambda one: one.first)]):
            self._at_start = False
            try:
                if self._demuxer in BARE:
                    self._container.seek(start.place, unsupported_byte_offset=True)
                else:
                    self._container.seek(start.place, stream=self.stream)
                yield self._from(start, self._container.demux(self.stream))
            except (av.error.FFmpegError, StopIteration):
                continue
        yield self.rewind()

    def feed(self, packet: Packet[VideoStream], *, sparing: bool = False) -> list[VideoFrame]:
        if packet.size:
            self._fed = self._number
            self._number += 1
        packet.pts = None
        self.stream.codec_context.skip_frame = "DEFAULT"
        try:
            return self._counted(self.stream.decode(packet))
        except av.error.FFmpegError:
            return []

    def drain(self) -> list[VideoFrame]:
        try:
            return self._counted(self.stream.decode(None))
        except av.error.FFmpegError:
            return []

    def seek_is_nearer(self, ticks: int) -> bool:
        starts = self._index.starts
        place = bisect_right(starts, ticks, key=lambda one: one.first) - 1
        return place > 0 and starts[place].number > self._fed + SEEK_COST_FRAMES

    def key_frames(self) -> int | None:
        return len(self._index.starts)

    def end_ticks(self, first_ticks: int) -> int:
        return self._index.packets

    def _counted(self, frames: list[VideoFrame]) -> list[VideoFrame]:
        for frame in frames:
            frame.pts, self._given = self._given, self._given + 1
        return frames

    def _again(self) -> Packets:
        if not self._at_start:
            self.reopen(self._threads)
        self._at_start = False
        return self._container.demux(self.stream)

    def _from(self, start: _Start, packets: Packets) -> Packets:
        """``packets`` from a start on, counting from there."""
        self._number, self._given = start.number, start.first
        bare = self._demuxer in BARE
        first = next(one for one in packets if one.size and (one.pos if bare else one.dts) == start.place)
        return itertools.chain([first], (one for one in packets if one.size or one.dts is None))

    def _scan(self) -> _Index:
        starts: list[_Start] = []
        number, lost, codec = -1, 0, self.stream.codec_context.name
        h265 = codec == "hevc"
        packets = self._again()
        while (packet := self.read(packets)) is not None:
            place = packet.pos if self._demuxer in BARE else packet.dts
            if packet.size == 0 or place is None or (number < 0 and not packet.is_keyframe):
                continue
            number += 1
            kind = _kind(packet, h265) if codec in BARE else -1
            if number == 0 or kind in (_H265_STARTS if h265 else (_IDR,)):
                starts.append(_Start(number, number, place))
                lost = 0
            elif h265 and kind in _RASL and starts[-1].number + lost + 1 == number:
                lost += 1
                starts[-1] = starts[-1]._replace(first=starts[-1].number + lost)
            elif h265 and kind in _RADL and len(starts) > 1:
                del starts[-1]  # these are shown before it, and are not lost
        if not starts:
            raise Unusable("holds no picture that decoding can begin at; record it again")
        return _Index((starts[0]._replace(first=0), *starts[1:]), number + 1)

    def _require_one_frame_a_packet(self) -> None:
        """Raises Unusable where packets hold fields, or a first picture leaves frames undecodable."""
        starts = self._index.starts
        count = min(CHECKED_PACKETS, starts[1].number if len(starts) > 1 else self._index.packets)
        packets = itertools.islice((one for one in self.rewind() if one.size), count)
        given = [frame for packet in packets for frame in self.feed(packet)] + self.drain()
        self._at_start = False
        packed = self.stream.codec_context.name not in BARE  # MPEG-4 of old programs has two frames in some packets
        if abs(len(given) - count) > packed:
            raise Unusable(
                "does not tell when its frames are shown, and they cannot be counted (fields, or damage); convert it "
                "to mp4 with the program that recorded it"
            )


def _kind(packet: Packet[VideoStream], h265: bool) -> int:
    """The type of a packet's first picture (nal_unit_type), -1 where none is found."""
    data = memoryview(packet)
    for part in (data[:HEAD_BYTES], data):
        for unit in _UNIT.finditer(part):
            kind = unit[1][0] >> 1 & 63 if h265 else unit[1][0] & 31
            if kind in (_H265_PICTURES if h265 else _H264_PICTURES):
                return kind
    return -1
