"""A span of a video as a playable mp4: packets copied where that shows just these frames, encoded anew where not."""

from __future__ import annotations

import io
import itertools
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.packet import Packet

from keyeloop.tools.confined.errors import Unusable
from keyeloop.tools.video.child.editlist import shown_for
from keyeloop.tools.video.child.reel import LOOK_PAST
from keyeloop.tools.video.child.sound import sound
from keyeloop.tools.video.child.video import VideoReader

MAX_BYTES = 192 << 20
COPIED = frozenset("h264 hevc av1 vp9 mpeg4".split())
QUALITY = {"preset": "veryfast", "crf": "18"}
STEPS_BACK_S = (0, 2, 10, 60, 600)
NEAR_S = Fraction(1, 1000)


@dataclass(frozen=True)
class Excerpt:
    """A clip file, and what it shows: whole frames from ``start_s`` to ``end_s`` of the video it was cut from."""

    data: bytes
    start_s: float
    end_s: float
    frames: int
    copied: bool
    """Whether the coded pictures are the source's own."""
    sound: bool


def excerpt(reader: VideoReader, start_s: float, end_s: float, *, copy: bool) -> Excerpt:
    """The frames on screen from ``start_s`` until ``end_s``, each for as long as it was, with the sound of that time.

    ``copy`` allows to take the packets as they are: such a file begins at the key frame before, and its edit list hides
    what was not asked for. Raises Unusable for a span whose file becomes too large.
    """
    begin = reader.shown(start_s).begin
    stop = max(begin + 1, reader.ticks_of(end_s, math.ceil))
    found = _copied(reader, begin, stop) if copy and not reader.counted else None
    data, shown, has_sound = found or _encoded(reader, begin, stop)
    return Excerpt(
        data, reader.seconds_of(begin), reader.seconds_of(shown[-1]), len(shown) - 1, found is not None, has_sound
    )


Made = tuple[bytes, list[int], bool]
"""The file, the ticks at which its frames begin and, last, at which they end, and whether there is sound."""


def _copied(reader: VideoReader, begin: int, stop: int) -> Made | None:
    """None where copied packets would not show exactly these frames."""
    with reader.open_again() as (container, stream):
        if stream.codec_context.name.removeprefix("lib").replace("dav1d", "av1") not in COPIED:
            return None
        packets = _from_key_frame(container, stream, begin, stop, reader.tick)
        if packets is None:
            return None
        shown = sorted(packet.pts for packet in packets if packet.pts is not None and not packet.is_discard)
        last_needed = max(place for place, packet in enumerate(packets) if packet.pts is not None and packet.pts < stop)
        wanted = [ticks for ticks in shown if begin <= ticks < stop]
        end = next((ticks for ticks in shown if ticks >= stop), reader.end_ticks)
        out = io.BytesIO()
        with sound(reader, begin, end) as heard, av.open(out, "w", format="mp4") as file:
            track: Any = file.add_stream_from_template(stream, opaque=True)
            del packets[last_needed + 1 :]
            moved = [_moved(packet, begin, track) for packet in packets]
            _date(moved)
            moved[-1].duration = end - wanted[-1]
            _mux(file, moved, heard)
            del packets, moved
    copied = out.getvalue()
    out.close()
    data = shown_for(copied, float((end - begin) * reader.tick))
    del copied
    expected = [(ticks - begin) * reader.tick for ticks in wanted]
    return (data, [*wanted, end], heard is not None) if _shows(data, expected) else None


def _moved(packet: Any, begin: int, track: Any) -> Any:
    """A packet of the new file, which the source's own edit list does not hide."""
    made: Any = Packet(bytes(packet))
    made.pts, made.time_base = packet.pts - begin, packet.time_base
    made.dts = None if packet.dts is None else packet.dts - begin
    made.duration, made.is_keyframe, made.stream = packet.duration, packet.is_keyframe, track
    return made


def _date(packets: list[Any]) -> None:
    """Give decoding times where the source has not: those of showing, in order, early enough for all."""
    if all(packet.dts is not None for packet in packets):
        return
    ascending = sorted(packet.pts for packet in packets)
    lead = max(time - packet.pts for time, packet in zip(ascending, packets, strict=True))
    for time, packet in zip(ascending, packets, strict=True):
        packet.dts = time - lead


def _from_key_frame(container: Any, stream: Any, begin: int, stop: int, tick: Fraction) -> list[Any] | None:
    """Packets from a key frame at or before ``begin`` until all that are shown before ``stop`` are there."""
    for back_s in STEPS_BACK_S:
        try:
            container.seek(begin - int(back_s / tick), stream=stream)
            packets: list[Any] = []
            size, past = 0, 0
            for packet in container.demux(stream):
                if packet.size == 0:
                    continue
                dts = packet.dts
                if packet.pts is None or (dts is not None and dts > packet.pts):
                    return None
                if not packets and not (packet.is_keyframe and packet.pts <= begin):
                    if dts is not None and dts > begin:
                        break
                    continue
                if packets and packet.pts < packets[0].pts:
                    continue  # shown before the key frame: it needs what is not here
                if packet.is_keyframe and packet.pts <= begin:
                    packets, size = [], 0
                packets.append(packet)
                size += packet.size
                past += dts is not None and dts > stop
                if size > MAX_BYTES:
                    return None
                if past > LOOK_PAST:
                    break
        except av.error.FFmpegError:
            return None
        if packets:
            return packets
    return None


def _shows(data: bytes, expected: list[Fraction]) -> bool:
    """Whether a player that follows edit lists sees frames at just these times (seconds) and can decode the first."""
    try:
        with av.open(io.BytesIO(data), "r", format="mov") as file:
            stream = file.streams.video[0]
            tick = stream.time_base or Fraction(1)
            packets = [packet for packet in file.demux(stream) if packet.size and packet.pts is not None]
            times = sorted(packet.pts * tick for packet in packets if not packet.is_discard and packet.pts is not None)
            near = len(times) == len(expected) and all(
                abs(one - other) <= NEAR_S for one, other in zip(times, expected, strict=True)
            )
        if not near:
            return False
        with av.open(io.BytesIO(data), "r", format="mov") as file:
            first = next(file.decode(video=0), None)
            return first is not None and abs((first.pts or 0) * tick - expected[0]) <= NEAR_S
    except av.error.FFmpegError:
        return False


def _encoded(reader: VideoReader, begin: int, stop: int) -> Made:
    shown: list[int] = []
    packets: list[Any] = []
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as file:
        track: Any = file.add_stream("libx264", options=QUALITY)
        end = reader.end_ticks
        for decoded in reader.frames(begin):
            ticks, picture = decoded.pts or 0, reader.upright(decoded)
            if ticks >= stop:
                end = ticks
                break
            if not shown:
                height, width = picture.shape[:2]
                track.width, track.height, track.pix_fmt = width // 2 * 2, height // 2 * 2, "yuv420p"
                context = track.codec_context
                context.time_base, context.sample_aspect_ratio = reader.tick, reader.pixel_shape
                context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
                context.color_range = 1
            shown.append(ticks)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
                track.width, track.height, "yuv420p", dst_colorspace=1, dst_color_range=1
            )
            frame.pts, frame.time_base = ticks - begin, reader.tick
            packets += track.encode(frame)
            if sum(packet.size for packet in packets) > MAX_BYTES:
                raise Unusable(f"makes a clip of more than {MAX_BYTES >> 20} MiB; choose a shorter span")
        if not shown:
            raise Unusable("holds no frame there that can be decoded; choose another span")
        packets += track.encode()
        shown.append(max(end, shown[-1] + 1))
        lengths = {one - begin: other - one for one, other in itertools.pairwise(shown)}
        for packet in packets:
            ratio = packet.time_base / reader.tick
            packet.duration = round(lengths.get(round(packet.pts * ratio), 1) / ratio)
        packets[-1].duration = round((shown[-1] - shown[-2]) / ratio)
        with sound(reader, begin, shown[-1]) as heard:
            _mux(file, packets, heard)
    length_s = float((shown[-1] - begin) * reader.tick)
    return shown_for(out.getvalue(), length_s), shown, heard is not None


def _mux(file: Any, packets: list[Any], heard: tuple[Any, list[Any]] | None) -> None:
    """Write pictures and sound in the order of their decoding."""
    if heard is not None:
        template, audio = heard
        track = file.add_stream_from_template(template, opaque=True)
        for packet in audio:
            packet.stream = track
        packets = sorted([*packets, *audio], key=lambda packet: packet.dts * packet.time_base)
    for packet in packets:
        file.mux(packet)
