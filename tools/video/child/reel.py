"""Decoding forward from a key frame: of what comes before the wanted frame, only what it is built on is decoded."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

if TYPE_CHECKING:
    from keyeloop.tools.video.child.tape import Packets, Tape

MAX_WAITING_BYTES = 32 << 20
LOOK_PAST = 8
"""Packets read beyond the one that settles which frame is wanted: decoding times that a demuxer guesses may be off."""
MAX_UNDATED = 64


class Reel:
    """One way through a stream: frames come in presentation order, ``now`` is the one that it stands at.

    Packets tell before they are decoded when they are shown. So a frame that no other is built on, and that is not
    wanted, need not be decoded (``skip_frame``); the others are the same with or without it. ``spares`` is False where
    packets do not tell, and then everything is decoded.
    """

    def __init__(self, tape: Tape, packets: Packets, *, spares: bool) -> None:
        self.now: VideoFrame | None = None
        self.spares = spares
        self._tape, self._packets = tape, packets
        self._waiting: deque[Packet[VideoStream]] = deque()
        self._waiting_bytes = 0
        self._fed: set[int] = set()
        """When the frames are shown that the decoder was given to keep, and has not given back."""
        self._out: deque[VideoFrame] = deque()
        self._dates: deque[int] = deque(maxlen=LOOK_PAST)
        """When the packets read last are decoded: no frame is shown before that, so later packets are shown later."""
        self._undated = 0
        self._ended = False

    def advance(self, ticks: int) -> bool:
        """Go on to the frame on screen at ``ticks``, which must not lie before ``now``.

        False when a frame that packets promised did not come: only a reel that decodes everything knows what is shown.
        """
        if self.spares:
            self._read_to(ticks)
        if not self.spares:
            while (frame := self._peek()) is not None and _ticks(frame) <= ticks:
                self.now = self._out.popleft()
            return True
        wanted = max((shown for shown in self._known() if shown <= ticks), default=None)
        while wanted is not None and (self.now is None or _ticks(self.now) < wanted):
            frame = self._peek(wanted)
            if frame is None or _ticks(frame) > ticks:
                return False
            self.now = self._out.popleft()
        return self.now is not None

    def until(self, ticks: int) -> int | None:
        """A moment up to which ``now`` is on screen for sure, given that it is at ``ticks``; None: to the end."""
        if not self.spares:
            frame = self._peek()
            return None if frame is None else _ticks(frame)
        later = [shown for shown in self._known() if shown > ticks]
        if not self._ended:
            settled = self._settled_ticks()
            later.append(ticks + 1 if settled <= ticks else int(settled))
        return min(later, default=None)

    def _known(self) -> list[int]:
        waiting = (packet.pts for packet in self._waiting if packet.pts is not None and not packet.is_discard)
        return [*map(_ticks, self._out), *self._fed, *waiting]

    def _settled_ticks(self) -> float:
        """No packet that is still to be read is shown before this."""
        return self._dates[0] if len(self._dates) == LOOK_PAST else -math.inf

    def _read_to(self, ticks: int) -> None:
        """Read until no packet can follow that is shown at or before ``ticks``, or packets turn out not to tell."""
        while not self._ended and self._settled_ticks() <= ticks:
            packet = self._read()
            if packet is None:
                return
            self._waiting.append(packet)
            self._waiting_bytes += packet.size
            if packet.size == 0:
                continue
            lies = packet.pts is None or (packet.dts is not None and packet.dts > packet.pts)
            if lies or self._waiting_bytes > MAX_WAITING_BYTES or self._undated > MAX_UNDATED:
                self.spares = False
                return

    def _read(self) -> Packet[VideoStream] | None:
        packet = self._tape.read(self._packets)
        if packet is None:
            self._ended = True
        elif packet.dts is not None:
            self._dates.append(packet.dts)
        else:
            self._undated += 1
        return packet

    def _peek(self, wanted: int | None = None) -> VideoFrame | None:
        """The next frame; before ``wanted``, only those that other frames are built on."""
        while not self._out:
            if self._waiting:
                packet: Packet[VideoStream] | None = self._waiting.popleft()
            else:
                packet = None if self._ended else self._read()
                self._waiting_bytes += 0 if packet is None else packet.size
            if packet is None:
                return None
            self._waiting_bytes -= packet.size
            shown = packet.pts
            sparing = wanted is not None and shown is not None and shown < wanted
            if self.spares and not sparing and shown is not None and not packet.is_discard:
                self._fed.add(shown)
            for frame in self._tape.feed(packet, sparing=sparing):
                self._fed.discard(_ticks(frame))
                self._out.append(frame)
        return self._out[0]


def _ticks(frame: VideoFrame) -> int:
    return frame.pts or 0
