"""A data worker: a process that draws, packs and batches samples. Without torch, so that it starts quickly."""

from __future__ import annotations

import os
import queue
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from training.keye_tiny.supply import Buckets, Shard, Source, Stock

NICENESS = 10
"""Workers leave the cores to the process that drives the device."""


@dataclass(frozen=True)
class Failure:
    """A shard that could not be made."""

    trace: str
    fatal: bool
    """The worker has ended over it."""


def work(
    open_source: Callable[[], Source],
    buckets: Buckets,
    seed: int,
    real_share: float,
    main_queue: Any,
    reader_queue: Any,
    difficulty: Any,
    stop: Any,
) -> None:
    """Keep both queues filled, readers first when their queue is the emptier one.

    What fails while a shard is made costs that shard alone: a :class:`Failure` goes into the queue in its stead.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.nice(NICENESS)
    try:
        stock = Stock(open_source(), buckets, seed, real_share)
        while not stop.is_set():
            want_reader = not reader_queue.full() and (
                main_queue.full()
                or reader_queue.qsize() / reader_queue._maxsize < main_queue.qsize() / main_queue._maxsize
            )
            found: Shard | Failure
            try:
                found = stock.reader(difficulty.value) if want_reader else stock.main(difficulty.value)
            except Exception:
                found = Failure(traceback.format_exc(), fatal=False)
            _put(reader_queue if want_reader else main_queue, found, stop)
    except BaseException:
        _put(main_queue, Failure(traceback.format_exc(), fatal=True), stop)
        raise
    finally:
        for each in (main_queue, reader_queue):
            each.cancel_join_thread()


def _put(target: Any, found: Shard | Failure, stop: Any) -> None:
    while not stop.is_set():
        try:
            target.put(found, timeout=0.5)
            return
        except queue.Full:
            continue
