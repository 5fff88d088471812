"""The frames on screen at many moments, cut and resized: by one reader, or by several side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from queue import SimpleQueue
from typing import NamedTuple, TypeAlias

from keyeloop.tools.video.child.ahead import ahead
from keyeloop.tools.video.child.picture import Pixels
from keyeloop.tools.video.child.recent import Shown
from keyeloop.tools.video.child.video import VideoReader

SHARES = 4
"""Stretches of moments for each reader: whoever is done takes the next, so that all are done at about the same time."""
WAITING_FRAMES, WAITING_BYTES = 3, 16 << 20
"""What a single reader decodes at most while the frame before is drawn and sent."""
READERS_A_DRAWING = 4
"""Making a picture of a decoded frame takes little time and much memory, so few do it at once."""

Look: TypeAlias = "tuple[int, Shown]"
"""What is on screen at the moment asked for in a place."""


class Wish(NamedTuple):
    """What to show of every frame."""

    region: tuple[float, float, float, float]
    """In displayed pixels: left, top, right, bottom."""
    size: tuple[int, int]
    keys: bool
    """Whether to take the key frame at or before each moment."""


class Shot(NamedTuple):
    """What is on screen at the moment asked for in ``place``; no pixels where another of its stretch has them."""

    place: int
    time_s: float
    pixels: Pixels | None


def shots(reader: VideoReader, times_s: Sequence[float], wish: Wish, readers: int) -> Iterator[Shot]:
    """One for every moment; in their order unless there are several ``readers``, which each use a core.

    No two frames that are the same come within a stretch, which is all moments for one reader. Raises Unusable.
    """
    if readers > 1:
        readers = min(readers, reader.useful_readers())
    if readers < 2:
        looks = _looks(reader, range(len(times_s)), times_s, wish)
        if len(times_s) > 1:
            frame_bytes = reader.facts.width * reader.facts.height * 3 // 2
            looks = ahead(looks, max(1, min(WAITING_FRAMES, WAITING_BYTES // frame_bytes)))
        yield from _drawn(reader, looks, wish, nullcontext())
        return
    with reader.one_thread():
        yield from _side_by_side(reader, times_s, wish, readers)


def _looks(reader: VideoReader, places: range, times_s: Sequence[float], wish: Wish) -> Iterator[Look]:
    look: Callable[[float], Shown] = reader.key_frame if wish.keys else reader.shown
    for place in places:
        yield place, look(times_s[place])


def _drawn(
    reader: VideoReader, looks: Iterator[Look], wish: Wish, drawing: AbstractContextManager[object]
) -> Iterator[Shot]:
    known: set[float] = set()
    for place, shown in looks:
        new = shown.time_s not in known
        known.add(shown.time_s)
        with drawing:
            shot = Shot(place, shown.time_s, reader.picture(shown, wish.region, wish.size) if new else None)
        del shown  # its memory is free while the next is decoded
        yield shot


def _side_by_side(reader: VideoReader, times_s: Sequence[float], wish: Wish, readers: int) -> Iterator[Shot]:
    length = max(1, -(-len(times_s) // (readers * SHARES)))
    stretches = iter([range(first, min(first + length, len(times_s))) for first in range(0, len(times_s), length)])
    done: SimpleQueue[Shot | BaseException | None] = SimpleQueue()
    room, over = threading.Semaphore(readers), threading.Event()
    drawing = threading.Semaphore(max(1, readers // READERS_A_DRAWING))

    def work(own: VideoReader) -> None:
        try:
            for places in stretches:
                for shot in _drawn(own, _looks(own, places, times_s, wish), wish, drawing):
                    room.acquire()  # as many pictures wait to be sent as there are readers
                    if over.is_set():
                        return
                    done.put(shot)
            done.put(None)
        except BaseException as error:
            done.put(error)

    twins: list[VideoReader] = []
    threads: list[threading.Thread] = []
    try:
        for own in (reader, *(reader.twin() for _ in range(readers - 1))):
            twins += [own] if own is not reader else []
            threads.append(threading.Thread(target=work, args=(own,), daemon=True))
            threads[-1].start()
        working = readers
        while working:
            one = done.get()
            if isinstance(one, BaseException):
                raise one
            if one is None:
                working -= 1
                continue
            yield one
            room.release()
    finally:
        over.set()
        room.release(readers * 2)
        for thread in threads:
            thread.join()
        for twin in twins:
            twin.close()
