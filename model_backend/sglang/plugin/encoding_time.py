"""How many pictures passed the vision tower, and how long that kept the device; asked for, never waited for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_OPEN_MARKS = 256
"""Pairs of device events that are kept before the finished ones are counted."""


class EncodingTime:
    """Counts since the server started."""

    def __init__(self) -> None:
        self._pictures, self._seconds = 0, 0.0
        self._open: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def of(self, pictures: int, device: torch.device) -> Iterator[None]:
        """Count what happens inside: on a GPU between two events, elsewhere by the clock."""
        self._pictures += pictures
        if device.type != "cuda":
            began_s = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - began_s
            return
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        yield
        stop.record()
        self._open.append((start, stop))
        if len(self._open) > _OPEN_MARKS:
            self._count()

    def told(self) -> dict[str, float]:
        """``pictures``, and ``device_s`` of those that are done."""
        self._count()
        return {"pictures": self._pictures, "device_s": round(self._seconds, 4)}

    def _count(self) -> None:
        waiting = []
        for start, stop in self._open:
            if stop.query():  # type: ignore[no-untyped-call]
                self._seconds += start.elapsed_time(stop) / 1000.0
            else:
                waiting.append((start, stop))
        self._open = waiting
