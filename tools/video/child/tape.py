"""The packets of one video stream, from its beginning or from a key frame, and the frames they decode to."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from typing import TypeAlias

import av
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from keyeloop.tools.video.child.container import MAX_THREADS, open_container, video_stream
from keyeloop.tools.video.child.unbuilt import is_unbuilt, length_bytes

FIRST_STEP_BACK_S = 1.0
SEEK_COST_FRAMES = 8
"""A seek throws away the frames that the decoder's threads are at: a key frame that is nearer is read on to."""
READ_ON_S = 5.0
"""Without an index: how far ahead decoding on is taken to be cheaper than seeking."""
TAILS_S = (3, 30, 300)
"""How far before the end its last frames are searched for."""
ENOUGH_PACKETS = 24
"""More than any codec here reorders: the latest of so many last packets is the latest frame."""
SETTLE_S = 1.5
"""After a seek in an MPEG program stream, times are guesses until one is stored, within 0.7 s (ISO 13818-1 2.7.4)."""
SEARCHED = frozenset({"mpegts", "mpeg"})
"""Formats in which every packet tells its time, so that seeking needs no index."""

Packets: TypeAlias = "Iterator[Packet[VideoStream]]"


class Tape:
    """Reads one video stream of a file; times are ticks of ``tick`` seconds, as the stream counts them."""

    note = ""
    """What a person should know of these times."""

    def __init__(self, fd: int, demuxer: str, threads: int = MAX_THREADS) -> None:
        """Opens the file behind ``fd``, which stays the caller's. Raises Unusable."""
        self._fd, self._demuxer, self._threads = fd, demuxer, threads
        self._container = open_container(fd, demuxer)
        self.stream = video_stream(self._container, threads)
        self.tick = self.stream.time_base or Fraction(1, av.time_base)
        self._length_bytes = length_bytes(self.stream.codec_context.name, self.stream.codec_context.extradata)
        self._fed_ticks = 0
        self._at_start = True

    @property
    def rate(self) -> Fraction | None:
        """Frames a second as the file tells them, on average where they vary."""
        return self.stream.average_rate or self.stream.guessed_rate

    def twin(self, fd: int) -> Tape:
        """Another one of the same file, with a position of its own and one thread. Raises Unusable."""
        return Tape(fd, self._demuxer, 1)

    def close(self) -> None:
        """Free the demuxer and the decoder."""
        self._container.close()

    def rewind(self) -> Packets:
        """All packets, from the first."""
        if not self._at_start:
            self.reopen(self._threads)
        self._at_start = False
        return self._container.demux(self.stream)

    def reopen(self, threads: int) -> None:
        """Begin anew, decoding with at most so many threads."""
        self._threads = threads
        self._container.close()
        self._container = open_container(self._fd, self._demuxer)
        self.stream = video_stream(self._container, threads)
        self._at_start = True

    def approaches(self, ticks: int, first_ticks: int) -> Iterator[Packets]:
        """Packets from key frames at or before ``ticks``, each try from further back, the last from the beginning.

        That the key frame itself is not after ``ticks`` matters: frames shown before it but stored after it (open
        groups of pictures) cannot be decoded from there.
        """
        settle = self._ticks(SETTLE_S) if self._demuxer == "mpeg" else 0
        aim, step = ticks - settle, FIRST_STEP_BACK_S
        while aim > first_ticks:
            try:
                self._at_start = False
                self._container.seek(aim, stream=self.stream)
                packets = self._container.demux(self.stream)
                landing = next(packets, None)
                settled = 0 if landing is None or landing.dts is None else landing.dts + settle
                candidates = packets if landing is None else itertools.chain([landing], packets)
                key = next((one for one in candidates if one.is_keyframe and (one.dts or 0) >= settled), None)
            except av.error.FFmpegError:
                break
            if key is not None and key.pts is not None and key.pts <= ticks:
                yield itertools.chain([key], packets)
            landed = aim if landing is None or landing.dts is None else min(aim, landing.dts)
            aim, step = landed - self._ticks(step), step * 2
        yield self.rewind()

    def decode(self, packets: Packets) -> Iterator[VideoFrame]:
        """Frames in presentation order; what is damaged is left out, as players do."""
        while (packet := self.read(packets)) is not None:
            yield from self.feed(packet)

    def read(self, packets: Packets) -> Packet[VideoStream] | None:
        """The next packet, the last one empty; None at the end, which damage may bring early."""
        try:
            return next(packets, None)
        except av.error.FFmpegError:
            return None

    def feed(self, packet: Packet[VideoStream], *, sparing: bool = False) -> list[VideoFrame]:
        """Frames that come out of the decoder for a packet; ``sparing`` leaves out one that no other is built on."""
        if packet.dts is not None:
            self._fed_ticks = packet.dts
        if sparing and is_unbuilt(memoryview(packet), self._length_bytes):
            return []  # the decoder would leave it out as well, after waking a thread for it
        self.stream.codec_context.skip_frame = "NONREF" if sparing else "DEFAULT"
        try:
            return [frame for frame in self.stream.decode(packet) if frame.pts is not None]
        except av.error.FFmpegError:
            return []

    def drain(self) -> list[VideoFrame]:
        """Frames that wait in the decoder, which takes no packet any more until the next seek."""
        try:
            return [frame for frame in self.stream.decode(None) if frame.pts is not None]
        except av.error.FFmpegError:
            return []

    def seek_is_nearer(self, ticks: int) -> bool:
        """Whether a key frame lies well between where decoding stands and ``ticks``, so that seeking saves work."""
        ahead = ticks - self._fed_ticks
        rate = self.stream.average_rate
        cost = self._ticks(SEEK_COST_FRAMES / rate) if rate else 0
        if ahead <= cost:
            return False
        index = self.stream.index_entries
        at = index.search_timestamp(ticks, backward=True) if len(index) else -1
        if at >= 0 and index[at].timestamp > self._fed_ticks + cost:
            return True
        complete = at >= 0 and len(index) >= self.stream.frames > 0
        return not complete and ahead > self._ticks(READ_ON_S)

    def key_frames(self) -> int | None:
        """How many key frames a seek finds at once; None where seeking is a search, which wants no index."""
        if self._demuxer in SEARCHED:
            return None
        index = self.stream.index_entries
        return sum(index[place].is_keyframe for place in range(len(index)))

    def end_ticks(self, first_ticks: int) -> int:
        """Where the last frame ends, from the packets at the end, or from all where no seek finds those."""
        hint = self.stream.duration
        if hint is None and self._container.duration is not None:
            hint = round(Fraction(self._container.duration, av.time_base) / self.tick)
        for tail_s in TAILS_S if hint is not None else ():
            aim = first_ticks + (hint or 0) - self._ticks(tail_s)
            if aim <= first_ticks:
                break
            try:
                self._at_start = False
                self._container.seek(aim, stream=self.stream)
            except av.error.FFmpegError:
                break
            count, end = self._latest(self._container.demux(self.stream))
            if count >= ENOUGH_PACKETS:
                return end
        return max(self._latest(self.rewind())[1], first_ticks + 1)

    def _latest(self, packets: Packets) -> tuple[int, int]:
        """How many packets are shown, and where the latest ends."""
        rate = self.stream.guessed_rate or self.stream.average_rate
        usual = round(1 / (rate * self.tick)) if rate else 0
        count, end = 0, 0
        try:
            for packet in packets:
                begin = packet.pts if packet.pts is not None else packet.dts
                if begin is not None and packet.size > 0 and not packet.is_discard:
                    count, end = count + 1, max(end, begin + (packet.duration or usual))
        except av.error.FFmpegError:
            pass  # what follows the damage cannot be shown either
        return count, end

    def _ticks(self, seconds: float | Fraction) -> int:
        return max(1, round(Fraction(seconds) / self.tick))
