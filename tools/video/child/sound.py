"""The sound of a span, as packets that an mp4 can hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
from av.container import InputContainer

if TYPE_CHECKING:
    from keyeloop.tools.video.child.video import VideoReader

COPIED = frozenset("aac mp3 mp3float ac3 eac3 opus libopus flac alac".split())
LEAD_S = 1
"""Sound lies in the file up to this far from its pictures."""


@contextmanager
def sound(reader: VideoReader, begin: int, end: int) -> Iterator[tuple[Any, list[Any]] | None]:
    """The audio stream and its packets from ``begin`` to ``end`` (ticks of the pictures), whose times begin at 0 there.

    None where there is no sound, or none that is copied.
    """
    with reader.open_again() as (container, _):
        stream = container.streams.best("audio")
        if stream is None or stream.time_base is None or stream.codec_context.name not in COPIED:
            yield None
            return
        for other in container.streams:
            other.discard = av.stream.Discard.all if other.index != stream.index else av.stream.Discard.default
        packets = _packets(container, stream, begin * reader.tick, end * reader.tick)
        yield (stream, packets) if packets else None


def _packets(container: InputContainer, stream: Any, start_s: Fraction, end_s: Fraction) -> list[Any]:
    packets: list[Any] = []
    try:
        container.seek(int((start_s - LEAD_S) / stream.time_base), stream=stream)
        for packet in container.demux(stream):
            if packet.size == 0 or packet.pts is None:
                continue
            time_s = Fraction(packet.pts) * stream.time_base
            if time_s >= end_s:
                break
            if time_s >= start_s:
                packet.pts -= round(start_s / stream.time_base)
                packet.dts = packet.pts
                packets.append(packet)
    except av.error.FFmpegError:
        return []
    return packets
