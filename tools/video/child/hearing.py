"""The sound of a span as samples: decoded, mixed to one channel, at one rate, each at its own time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import av
import av.audio.resampler  # which PyAV loads when it first meets sound
import numpy as np
from numpy.typing import NDArray

from keyeloop.tools.confined.errors import Unusable
from keyeloop.tools.video.child.video import VideoReader

DECODERS = frozenset(
    """aac aac_latm mp1 mp1float mp2 mp2float mp3 mp3float ac3 eac3 dca truehd opus libopus vorbis libvorbis speex
    flac alac wavpack tta wmav1 wmav2 wmapro wmalossless amrnb amrwb gsm gsm_ms cook nellymoser adpcm_ima_wav
    adpcm_ima_qt adpcm_ms adpcm_swf pcm_s16le pcm_s16be pcm_s24le pcm_s24be pcm_s32le pcm_s32be pcm_f32le pcm_f32be
    pcm_f64le pcm_u8 pcm_s8 pcm_alaw pcm_mulaw pcm_bluray pcm_dvd
    """.split()
)
LEAD_S = 1.0
"""Sound lies in the file up to this far from its pictures, and a decoder needs some packets to begin."""


def hear(reader: VideoReader, start_s: float, end_s: float, rate_hz: int) -> NDArray[np.int16]:
    """One channel of sound from ``start_s`` to ``end_s``, seconds from the first frame; silence where there is none.

    Exactly ``round((end_s - start_s) * rate_hz)`` samples, at their presentation times. Raises Unusable for a video
    without sound that can be decoded.
    """
    heard = np.zeros(max(0, round((end_s - start_s) * rate_hz)), np.int16)
    begin_s = start_s - reader.seconds_of(0)  # in the container's own time
    with reader.open_again() as (container, _):
        stream: Any = container.streams.best("audio")
        if stream is None:
            raise Unusable("has no sound")
        codec = stream.codec_context.name
        if codec not in DECODERS:
            raise Unusable(f"has sound coded as {codec}, which is not decoded here; convert it to aac in mp4")
        for other in container.streams:
            other.discard = av.stream.Discard.all if other.index != stream.index else av.stream.Discard.default
        decoded = 0
        for time_s, samples in _samples(container, stream, begin_s, end_s - start_s, rate_hz):
            decoded += 1
            place = round((time_s - begin_s) * rate_hz)
            first, last = max(0, place), min(len(heard), place + len(samples))
            if first < last:
                heard[first:last] = samples[first - place : last - place]
        if not decoded and start_s == 0:
            raise Unusable(f"has sound ({codec}) that cannot be decoded: it is damaged")
    return heard


def _samples(
    container: Any, stream: Any, begin_s: float, length_s: float, rate_hz: int
) -> Iterator[tuple[float, NDArray[np.int16]]]:
    """Decoded stretches and when each begins, in the container's seconds; packets that are damaged are left out."""
    with suppress(av.error.FFmpegError):  # where it cannot be sought it is read from its beginning
        container.seek(int((begin_s - LEAD_S) / stream.time_base), stream=stream)
    resampler: Any = None
    time_s, shape = begin_s, None
    for packet in _packets(container, stream):
        if packet.pts is not None and packet.pts * stream.time_base > begin_s + length_s + LEAD_S:
            return
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            continue
        for frame in frames:
            if shape != (frame.sample_rate, frame.layout.name, frame.format.name):
                shape = (frame.sample_rate, frame.layout.name, frame.format.name)
                resampler = av.AudioResampler("s16", "mono", rate_hz)
            for made in resampler.resample(frame):
                if made.pts is not None:
                    time_s = float(made.pts * made.time_base)
                samples = made.to_ndarray()[0]
                yield time_s, samples
                time_s += len(samples) / rate_hz


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    try:
        yield from container.demux(stream)
    except av.error.FFmpegError:
        return  # what comes before the damage counts
