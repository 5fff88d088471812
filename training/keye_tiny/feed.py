"""Keeps the device supplied: worker processes that make shards, and a thread that renders them ahead of their use."""

from __future__ import annotations

import multiprocessing
import os
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from training.keye_tiny.batch import Loader, Micro, pinned
from training.keye_tiny.supply import Buckets, Shard, Source, Stock, work

PATIENCE_S = 0.25
"""How long to wait for a new shard before one is used again."""


class Feeder:
    """Worker processes and the two queues they fill. With ``workers`` 0 shards are made on demand in this process.

    When a queue runs dry an earlier shard is used again (its pictures are rendered anew), at most ``max_uses`` times.
    """

    def __init__(
        self,
        open_source: Callable[[], Source],
        buckets: Buckets,
        *,
        workers: int,
        seed: int,
        pin: bool,
        real_share: float = 0.0,
        max_uses: int = 2,
        depth: tuple[int, int] = (32, 12),
    ) -> None:
        self.waited_s, self.taken, self.reused = 0.0, 0, 0
        self._max_uses = max_uses
        self._kept: dict[bool, deque[tuple[Shard, int]]] = {False: deque(maxlen=96), True: deque(maxlen=48)}
        self._rng = random.Random(seed)
        self._stock = Stock(open_source(), buckets, seed, real_share) if workers == 0 else None
        self._difficulty_here = 0.0
        self._processes: list[Any] = []
        self._stopping = threading.Event()
        if workers:
            self._start(open_source, buckets, workers, seed, pin, real_share, depth)

    def _start(
        self,
        open_source: Callable[[], Source],
        buckets: Buckets,
        workers: int,
        seed: int,
        pin: bool,
        real_share: float,
        depth: tuple[int, int],
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch", "training.keye_tiny.supply"])
        self._stop = context.Event()
        self._difficulty = context.Value("d", 0.0)
        self._remote = {False: context.Queue(depth[0]), True: context.Queue(depth[1])}
        self._local: dict[bool, queue.Queue[Any]] = {False: queue.Queue(24), True: queue.Queue(8)}
        for index in range(workers):
            arguments = (
                open_source, buckets, seed * 1000 + index, real_share,
                self._remote[False], self._remote[True], self._difficulty, self._stop,
            )  # fmt: skip
            process = context.Process(target=work, args=arguments, daemon=True)
            process.start()
            self._processes.append(process)
        for reader in (False, True):
            threading.Thread(target=self._carry, args=(reader, pin), daemon=True).start()

    def _carry(self, reader: bool, pin: bool) -> None:
        while not self._stopping.is_set():
            try:
                found = self._remote[reader].get(timeout=0.5)
            except queue.Empty:
                continue
            except (EOFError, OSError):
                return
            if isinstance(found, Shard) and pin:
                found = pinned(found)
            while not self._stopping.is_set():
                try:
                    self._local[reader].put(found, timeout=0.5)
                    break
                except queue.Full:
                    continue

    def set_difficulty(self, value: float) -> None:
        """0 is easiest, 1 the full difficulty; workers follow with the next sample."""
        self._difficulty_here = value
        if self._processes:
            self._difficulty.value = value

    def take(self, reader: bool) -> Shard:
        """The next shard; waits only when nothing can be used again. Raises RuntimeError when a worker has failed."""
        self.taken += 1
        if self._stock is not None:
            started = time.perf_counter()
            shard = (self._stock.reader if reader else self._stock.main)(self._difficulty_here)
            self.waited_s += time.perf_counter() - started
            return shard
        try:
            found = self._local[reader].get(timeout=PATIENCE_S)
        except queue.Empty:
            self.waited_s += PATIENCE_S
            kept = self._kept[reader]
            if len(kept) >= 8:
                place = self._rng.randrange(len(kept) // 2)
                shard, uses = kept[place]
                if uses < self._max_uses:
                    kept[place] = (shard, uses + 1)
                    self.reused += 1
                    return shard
            found = self._wait(reader)
        if isinstance(found, str):
            raise RuntimeError(f"a data worker failed:\n{found}")
        assert isinstance(found, Shard)
        self._kept[reader].append((found, 1))
        return found

    def _wait(self, reader: bool) -> Any:
        started = time.perf_counter()
        while True:
            try:
                found = self._local[reader].get(timeout=1.0)
                break
            except queue.Empty:
                if not any(process.is_alive() for process in self._processes):
                    raise RuntimeError("all data workers have ended") from None
        self.waited_s += time.perf_counter() - started
        return found

    def close(self) -> None:
        """Stop the workers."""
        self._stopping.set()
        if self._processes:
            self._stop.set()
            for process in self._processes:
                process.join(timeout=1.0)
            for process in self._processes:
                if process.is_alive():
                    process.kill()


def worker_count(world: int) -> int:
    """Data workers of one rank: all cores but two a rank."""
    return max(1, len(os.sched_getaffinity(0)) // world - 2)


class Prefetch:
    """Loads shards ahead of their use, many at once, in a thread with a stream of its own; on a CPU, one on demand."""

    def __init__(self, feeder: Feeder, loader: Loader, device: torch.device, depth: tuple[int, int] = (24, 8)) -> None:
        self._feeder, self._loader, self._depth = feeder, loader, depth
        self.waited_s = 0.0
        self._threaded = device.type == "cuda"
        self._stopping = threading.Event()
        self._ready: dict[bool, queue.Queue[Any]] = {False: queue.Queue(), True: queue.Queue()}
        if self._threaded:
            self._device = device
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def take(self, reader: bool) -> Micro:
        """The next micro-batch, ready on the current stream. Raises what the thread died of."""
        if not self._threaded:
            return self._loader.load(self._feeder.take(reader))
        started = time.perf_counter()
        found = self._ready[reader].get()
        self.waited_s += time.perf_counter() - started
        if isinstance(found, BaseException):
            raise found
        micro, event = found
        stream = torch.cuda.current_stream()
        stream.wait_event(event)
        for value in _tensors(micro):
            value.record_stream(stream)
        return micro  # type: ignore[no-any-return]

    def _run(self) -> None:
        try:
            torch.cuda.set_device(self._device)
            with torch.cuda.stream(self._stream):
                while not self._stopping.is_set():
                    self._fill()
        except BaseException as error:  # handed to whoever takes next
            for each in self._ready.values():
                each.put(error)

    def _fill(self) -> None:
        missing = [
            depth - self._ready[reader].qsize() for reader, depth in zip((False, True), self._depth, strict=True)
        ]
        if all(2 * lack < depth for lack, depth in zip(missing, self._depth, strict=True)):
            time.sleep(0.002)
            return
        shards = [self._feeder.take(reader) for reader in (False, True) for _ in range(missing[int(reader)])]
        micros = self._loader.load_all(shards)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(self._stream)
        for micro in micros:
            self._ready[micro.reader].put((micro, event))

    def close(self) -> None:
        """Stop the thread."""
        self._stopping.set()
        if self._threaded:
            self._thread.join(timeout=5.0)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, tuple):
        return [tensor for item in value for tensor in _tensors(item)]
    if isinstance(value, Micro):
        return [tensor for item in vars(value).values() for tensor in _tensors(item)]
    return []
