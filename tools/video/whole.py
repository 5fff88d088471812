"""Many frames of one video in one pass: each is resized as it is decoded and stored at once: memory stays small."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from keyeloop.runtime.content import Image, MediaRef, Video
from keyeloop.runtime.errors import InputError
from keyeloop.runtime.evidence import Source
from keyeloop.runtime.media import MediaStore
from keyeloop.runtime.views import ViewBook
from keyeloop.tools.confined.errors import Unusable
from keyeloop.tools.video.decoder import Decoder
from keyeloop.tools.video.readers import readers_for

STORING_THREADS = 2
WAITING_FRAMES = 8
"""Decoded frames that may wait to be stored."""


class Stored(NamedTuple):
    """A frame in the media store, with its own presentation time in seconds from the first frame."""

    time_s: float
    media: MediaRef


async def watch_frames(
    source: Source,
    moments_s: Sequence[float],
    size: tuple[int, int],
    decoder: Decoder,
    media: MediaStore,
    on_frame: Callable[[int], None],
    *,
    key_frames: bool = False,
) -> tuple[Stored, ...]:
    """The distinct frames on screen at ascending moments, resized to ``size`` (width, height) and stored.

    With ``key_frames``, those before the moments, with their own times, if every moment has another one.

    Decoding goes forward; where a key frame lies well ahead it is sought (see ``child/tape.py``). Long videos are read
    by several readers side by side in the guarded child (see ``readers.py``), with the same frames. The child's
    limits of processor and wall time are for each frame. ``on_frame`` is called, in another thread, with how many
    moments are done. Cancelling it stops the decoding, and nothing is stored after it has returned. Raises InputError
    for a file that cannot be decoded.
    """
    cancelled = threading.Event()
    working = asyncio.create_task(
        asyncio.to_thread(_watch, source, moments_s, size, decoder, media, on_frame, cancelled, key_frames)
    )
    try:
        return await asyncio.shield(working)
    except Unusable as error:
        raise InputError(f"{source.path} {error}") from None
    except asyncio.CancelledError:
        cancelled.set()
        decoder.stop()
        await asyncio.wait({working})  # so that nothing is stored any more
        working.exception()
        raise


def show_frames(source: Source, frames: Sequence[Stored], views: ViewBook) -> Video:
    """Frames that :func:`watch_frames` stored as one clip, each under a handle of its own, as ``clip_video``'s."""
    shown = ((views.frame(source.name, source.sha256, one.time_s, source.whole), one.media) for one in frames)
    return Video(tuple(Image(media, view) for view, media in shown))


def _watch(
    source: Source,
    moments_s: Sequence[float],
    size: tuple[int, int],
    decoder: Decoder,
    media: MediaStore,
    on_frame: Callable[[int], None],
    cancelled: threading.Event,
    key_frames: bool,
) -> tuple[Stored, ...]:
    if key_frames:
        keys = decoder.cut(source.path, moments_s, source.whole, *size, key_frames=True)
        if len(keys) == len(moments_s) and not cancelled.is_set():
            on_frame(len(keys))
            return tuple(Stored(one.time_s or 0.0, media.put_image(one.pixels)) for one in keys)
    stored: dict[float, Future[MediaRef]] = {}
    waiting: deque[Future[MediaRef]] = deque()
    done = 0

    def take(place: int, time_s: float, pixels: Any) -> None:
        nonlocal done
        if cancelled.is_set():
            raise Unusable("is no longer looked at: that was stopped")
        if pixels is not None and time_s not in stored:
            stored[time_s] = pool.submit(media.put_image, pixels)
            waiting.append(stored[time_s])
        while len(waiting) > WAITING_FRAMES:
            waiting.popleft().result()
        done += 1
        on_frame(done)

    with ThreadPoolExecutor(STORING_THREADS, "store frames") as pool:
        readers = readers_for(source, len(moments_s))
        decoder.watch(source.path, moments_s, source.whole, size, take, readers=readers)
    return tuple(Stored(time_s, future.result()) for time_s, future in sorted(stored.items()))
