"""The child's life: warm up, give up rights, then answer one request after the other until the tools hang up.

Requests (header; every one carries the media file's descriptor):

- ``{"op": "probe", "cpu_s"}`` -> ``{"kind", "width", "height", "duration_s", "fps"}``, the last two null for an image
- ``{"op": "cut", "cpu_s", "times", "keys", "region", "size", "readers"}`` -> for each asked time ``{"place", "time"}``,
  its index and the time of its frame, with width x height x 3 bytes, or none for a frame that was sent before; after
  the last ``{"end": true}``. ``times`` null is for an image, whose time is null. With ``keys`` frames are those key
  frames that come before. With ``readers``, at most so many side by side, they come in any order, and ``cpu_s`` is for
  each frame.
- ``{"op": "excerpt", "cpu_s", "start_s", "end_s", "copy"}`` -> the other fields of Excerpt, and its file
- ``{"op": "words", "cpu_s"}`` -> the subtitle tracks as JSON; ``"words beside"``: those of a subtitle file
- ``{"op": "hear", "cpu_s", "start_s", "end_s", "rate"}`` -> the sound of a span: 16-bit samples of one channel

Refusals are ``{"error": clause}``; after what nobody foresaw the process also ends.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import socket
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import av
import av.audio.codeccontext  # which PyAV loads when it first meets sound
import cv2
import numpy as np

from keyeloop.runtime.picture import decode_picture
from keyeloop.tools.confined.errors import Unusable
from keyeloop.tools.confined.limits import allow_cpu, lock_down
from keyeloop.tools.confined.wire import WireClosed, receive, send
from keyeloop.tools.video.child.excerpt import excerpt
from keyeloop.tools.video.child.hearing import hear
from keyeloop.tools.video.child.picture import cut
from keyeloop.tools.video.child.showing import Wish, shots
from keyeloop.tools.video.child.sniff import sniff
from keyeloop.tools.video.child.still import StillReader
from keyeloop.tools.video.child.subtitles import Track, embedded, subtitle_file
from keyeloop.tools.video.child.video import VideoReader

MAX_OPEN = 12

Reader = VideoReader | StillReader
Identity = tuple[int, int, int, int]
Reply = tuple[dict[str, Any], bytes | memoryview]


def main(channel_fd: int) -> None:
    """Serve the socket ``channel_fd`` until the other side closes it."""
    channel = socket.socket(fileno=channel_fd)
    _warm_up()
    send(channel, {"ready": True, "filtered": lock_down()})
    readers: OrderedDict[Identity, Reader] = OrderedDict()
    while True:
        try:
            header, _, fd = receive(channel)
        except WireClosed:
            return
        if fd is None:
            raise SystemExit("a request without a file")
        _allow_cpu(header)
        try:
            for reply, payload in _answers(header, readers, fd):
                send(channel, reply, payload)
                if header.get("readers"):
                    _allow_cpu(header)
        except WireClosed:
            return
        except Unusable as error:
            send(channel, {"error": str(error)})
        except MemoryError:
            send(channel, {"error": "needs more memory than decoding may use; make its frames smaller"})
        except Exception as error:
            send(channel, {"error": f"broke the decoder ({type(error).__name__}: {error}); convert it to h264 in mp4"})
            return


def _allow_cpu(header: dict[str, Any]) -> None:
    allow_cpu(float(header["cpu_s"]) * (header.get("readers") or 1))


def _answers(header: dict[str, Any], readers: OrderedDict[Identity, Reader], fd: int) -> Iterator[Reply]:
    if header["op"] == "words beside":
        yield _words((subtitle_file(fd),))
    elif header["op"] == "cut":
        yield from _cut(header, _reader(readers, fd))
        yield {"end": True}, b""
    else:
        yield _answer(header, _reader(readers, fd))


def _answer(header: dict[str, Any], reader: Reader) -> Reply:
    if header["op"] == "probe":
        if isinstance(reader, StillReader):
            still = {"kind": "image", "width": reader.width, "height": reader.height}
            return {**still, "duration_s": None, "fps": None}, b""
        return {"kind": "video", **asdict(reader.facts)}, b""
    if isinstance(reader, StillReader):
        raise Unusable("is a picture, not a video; name a video")
    if header["op"] == "words":
        return _words(embedded(reader))
    if header["op"] == "hear":
        return {}, hear(reader, header["start_s"], header["end_s"], header["rate"]).data.cast("B")
    made = excerpt(reader, header["start_s"], header["end_s"], copy=header["copy"])
    told = {"start_s": made.start_s, "end_s": made.end_s, "frames": made.frames}
    return {**told, "copied": made.copied, "sound": made.sound}, made.data


def _cut(header: dict[str, Any], reader: Reader) -> Iterator[Reply]:
    left, top, right, bottom = header["region"]
    width, height = header["size"]
    region, size = (left, top, right, bottom), (width, height)
    if isinstance(reader, StillReader):
        pixels = cut(reader.pixels, (reader.width, reader.height), region, size)
        yield {"place": 0, "time": None}, np.ascontiguousarray(pixels).data.cast("B")
        return
    wish = Wish(region, size, header.get("keys") is True)
    for shot in shots(reader, header["times"], wish, header.get("readers") or 1):
        pixels_of = b"" if shot.pixels is None else np.ascontiguousarray(shot.pixels).data.cast("B")
        yield {"place": shot.place, "time": shot.time_s}, pixels_of


def _words(tracks: tuple[Track, ...]) -> Reply:
    return {}, json.dumps([asdict(track) for track in tracks]).encode()


def _reader(readers: OrderedDict[Identity, Reader], fd: int) -> Reader:
    """The reader of a file, kept open between requests; takes over ``fd``."""
    status = os.fstat(fd)
    identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    known = readers.get(identity)
    if known is not None:
        os.close(fd)
        readers.move_to_end(identity)
        return known
    while len(readers) >= MAX_OPEN:
        readers.popitem(last=False)[1].close()
    try:
        container = sniff(fd)
    except BaseException:
        os.close(fd)
        raise
    reader = StillReader(fd) if container.kind == "image" else VideoReader(fd, container.demuxer)
    readers[identity] = reader
    return reader


def _warm_up() -> None:
    """Use every library once, so that nothing is left to load when files can no longer be opened."""
    av.logging.set_level(None)
    cv2.setNumThreads(1)
    pixels = np.zeros((16, 16, 3), np.uint8)
    for kind in (".jpg", ".png", ".webp"):
        decode_picture(cv2.imencode(kind, pixels)[1].tobytes())
    cut(pixels, (16, 16), (0, 0, 16, 16), (8, 8))
    cut(pixels, (16, 16), (0, 0, 16, 16), (24, 24))
    with tempfile.TemporaryFile() as words:
        words.write(b"1\n00:00:00,000 --> 00:00:01,000\nready\n")
        words.flush()
        subtitle_file(os.dup(words.fileno()))
    for encoding in ("utf-8-sig", "utf-16", "cp1252"):
        codecs.lookup(encoding)
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 16
        track = container.add_stream("pcm_s16le", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        silence.sample_rate, silence.pts = 8000, 0
        container.mux(track.encode(silence))
        for packet in (*stream.encode(av.VideoFrame.from_ndarray(pixels)), *stream.encode()):
            container.mux(packet)
    data = file.getvalue()
    for length in (len(data), len(data) // 2, 5):
        with tempfile.TemporaryFile() as copy:
            copy.write(data[:length])
            copy.flush()
            try:
                reader = VideoReader(os.dup(copy.fileno()), "matroska")
                reader.pixels(reader.shown(1.0))
                excerpt(reader, 0.0, 1.0, copy=False)
                embedded(reader)
                hear(reader, 0.0, 0.1, 16_000)
                reader.close()
            except Unusable:
                continue
