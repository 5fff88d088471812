"""Opening a video from a descriptor, with one chosen demuxer and nothing else that libavformat could reach."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from keyeloop.tools.confined.errors import Unusable

BUFFER_BYTES = 1 << 16
MAX_PIXELS = 100_000_000
MAX_THREADS = 4
DECODERS = frozenset(
    """h264 hevc vvc av1 libdav1d vp8 vp9 libvpx libvpx-vp9 vp6 vp6a vp6f theora
    mpeg1video mpeg2video mpeg4 msmpeg4v1 msmpeg4v2 msmpeg4 h263 h263i flv rv40 wmv1 wmv2 wmv3 vc1
    mjpeg gif png cinepak svq1 svq3 qtrle dvvideo prores dnxhd cfhd hap rawvideo ffv1 huffyuv ffvhuff utvideo
    """.split()
)


class DescriptorFile:
    """A read-only file for PyAV over a descriptor, with its own position, so that several may share one."""

    name = "input"
    """What libavformat takes for the address: no folder and no ending to guess from."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._size = os.fstat(fd).st_size
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        data = os.pread(self._fd, self._size - self._at if size < 0 else size, self._at)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at


def open_container(fd: int, demuxer: str) -> InputContainer:
    """Open a video; every attempt of libavformat to open something further fails.

    Raises Unusable for a file that ends before its index or cannot be read.
    """
    if demuxer == "mov":
        _require_index(fd)
    return open_stream(DescriptorFile(fd), demuxer)


def open_stream(file: Any, demuxer: str) -> InputContainer:
    """As :func:`open_container`, for an object that is read like a binary file. Raises Unusable."""
    options = {
        "protocol_whitelist": "none",
        "format_whitelist": demuxer,
        "max_pixels": str(MAX_PIXELS),
        "max_streams": "64",
    }
    if demuxer == "mov":
        options |= {"enable_drefs": "0", "use_absolute_path": "0"}
    try:
        container: InputContainer = av.open(
            file, "r", format=demuxer, options=options, buffer_size=BUFFER_BYTES, io_open=_refuse_nested
        )
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise Unusable(f"cannot be read as {demuxer} ({reason}): it is damaged; copy or convert it again") from None
    return container


def video_stream(container: InputContainer, threads: int = MAX_THREADS) -> VideoStream:
    """The stream to look at: the best one that is not a cover picture, ready to decode with at most so many threads.

    Raises Unusable when there is none or its codec is not one of those we decode.
    """
    moving = [stream for stream in container.streams.video if not stream.disposition & _attached_picture()]
    if not moving:
        what = "only audio" if container.streams.audio else "no video stream"
        raise Unusable(f"holds {what}, nothing to look at; pass a video or an image")
    best = container.streams.best("video")
    stream = best if isinstance(best, VideoStream) and best in moving else moving[0]
    codec = stream.codec_context.name if stream.codec_context is not None else "unknown"
    if codec not in DECODERS:
        raise Unusable(f"is coded as {codec}, which is not decoded here; convert it to h264 in mp4")
    stream.codec_context.thread_type = "AUTO"
    stream.codec_context.thread_count = min(threads, os.cpu_count() or 1)
    for other in container.streams:
        if other.index != stream.index:
            other.discard = av.stream.Discard.all
    return stream


def _refuse_nested(url: str, flags: int, options: dict[str, Any]) -> Any:
    raise PermissionError("a media file may not open other files")


def _attached_picture() -> int:
    return int(av.stream.Disposition.attached_pic)


def _require_index(fd: int) -> None:
    """An mp4 needs a whole ``moov`` box (ISO/IEC 14496-12): without it nothing in the file can be found."""
    size = os.fstat(fd).st_size
    for name, start, length in _boxes(fd, size):
        if name == b"moov" and start + length <= size:
            return
    raise Unusable("ends before its index (no complete moov box): recording or download was cut; copy it again")


def _boxes(fd: int, size: int) -> Iterator[tuple[bytes, int, int]]:
    at = 0
    for _ in range(100_000):
        head = os.pread(fd, 16, at)
        if len(head) < 8:
            return
        length = int.from_bytes(head[:4], "big")
        if length == 1 and len(head) == 16:
            length = int.from_bytes(head[8:], "big")
        elif length == 0:
            length = size - at
        if length < 8:
            return
        yield head[4:8], at, length
        at += length
