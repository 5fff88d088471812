"""Keeps the device supplied: worker processes that make shards, and a thread that renders them ahead of their use."""

from __future__ import annotations

import multiprocessing
import os
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from training.keye_tiny.batch import Loader, Micro, Step, pinned
from training.keye_tiny.supply import Buckets, Shard, Source, Stock
from training.keye_tiny.worker import Failure, work

PATIENCE_S = 0.25
"""How long to wait for a new shard before one is used again."""
FORGIVEN = (3, 0.01)
"""So many failed shards, and such a share of all shards, do not end a run."""


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
        depth: tuple[int, int] = (16, 8),
    ) -> None:
        self.waited_s, self.taken, self.reused, self.made, self.failed = 0.0, 0, 0, 0, 0
        self._max_uses = max_uses
        self._kept: dict[bool, deque[tuple[Shard, int]]] = {False: deque(maxlen=48), True: deque(maxlen=24)}
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
        context.set_forkserver_preload(["training.keye_tiny.worker"])
        self._stop = context.Event()
        self._difficulty = context.Value("d", 0.0)
        self._remote = {False: context.Queue(depth[0]), True: context.Queue(depth[1])}
        self._local: dict[bool, queue.Queue[Any]] = {False: queue.Queue(12), True: queue.Queue(6)}
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
        found = self._get(reader, PATIENCE_S)
        if found is None:
            self.waited_s += PATIENCE_S
            kept = self._kept[reader]
            if len(kept) >= 8:
                place = self._rng.randrange(len(kept) // 2)
                shard, uses = kept[place]
                if uses < self._max_uses:
                    kept[place] = (shard, uses + 1)
                    self.reused += 1
                    return shard
            started = time.perf_counter()
            while found is None:
                found = self._get(reader, 1.0)
            self.waited_s += time.perf_counter() - started
        self._kept[reader].append((found, 1))
        return found

    def _get(self, reader: bool, patience_s: float) -> Shard | None:
        """A new shard, or None when none came in time."""
        end = time.perf_counter() + patience_s
        while (rest := end - time.perf_counter()) > 0:
            try:
                found = self._local[reader].get(timeout=rest)
            except queue.Empty:
                break
            if isinstance(found, Shard):
                self.made += 1
                return found
            self._forgive(found)
        if not any(process.is_alive() for process in self._processes):
            raise RuntimeError("all data workers have ended")
        return None

    def _forgive(self, failure: Failure) -> None:
        """Count and print a failure; RuntimeError when there are too many."""
        self.failed += 1
        print(f"a data worker failed ({self.failed} times in {self.made + self.failed}):\n{failure.trace}", flush=True)
        most, share = FORGIVEN
        if failure.fatal and not any(process.is_alive() for process in self._processes):
            raise RuntimeError(f"all data workers have ended:\n{failure.trace}")
        if self.failed > most and self.failed > share * (self.made + self.failed):
            raise RuntimeError(f"a data worker failed too often, {self.failed} times:\n{failure.trace}")

    def close(self) -> None:
        """Stop the workers."""
        self._stopping.set()
        if self._processes:
            self._stop.set()
            end = time.monotonic() + 1.0
            for process in self._processes:
                process.join(timeout=max(end - time.monotonic(), 0.01))
            for process in self._processes:
                if process.is_alive():
                    process.kill()


def worker_count(world: int) -> int:
    """Data workers of one rank: all cores but two a rank."""
    return max(1, len(os.sched_getaffinity(0)) // world - 2)


class Prefetch:
    """Loads steps ahead of their use, several at once, in a thread with a stream of its own; on a CPU, one on demand.

    ``kinds`` says for each shard of the next step whether it is one of readers; set it before :meth:`take`. Steps
    already under way keep the kinds they were begun with.
    """

    def __init__(self, feeder: Feeder, loader: Loader, device: torch.device, *, depth: int = 8) -> None:
        self._feeder, self._loader, self._depth = feeder, loader, depth
        self.kinds: Callable[[int], Sequence[bool]] = lambda step: (False,)
        self.waited_s = self.render_s = 0.0
        self._begun = 0
        self._threaded = device.type == "cuda"
        self._stopping = threading.Event()
        self._ready: queue.Queue[Any] = queue.Queue()
        if self._threaded:
            self._device = device
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self, kinds: Callable[[int], Sequence[bool]]) -> None:
        """Begin to load ahead; ``kinds(n)`` tells for the n-th step from now which of its shards are of readers."""
        self.kinds = kinds
        if self._threaded:
            self._thread.start()

    def take(self) -> Step:
        """The next step, ready on the current stream. Raises what the thread died of."""
        if not self._threaded:
            return self._loader.load(self._shards())
        started = time.perf_counter()
        found = self._ready.get()
        self.waited_s += time.perf_counter() - started
        if isinstance(found, BaseException):
            raise found
        step, event = found
        stream = torch.cuda.current_stream()
        stream.wait_event(event)
        for value in _tensors(step):
            value.record_stream(stream)
        return step  # type: ignore[no-any-return]

    def _shards(self) -> list[Shard]:
        self._begun += 1
        return [self._feeder.take(reader) for reader in self.kinds(self._begun - 1)]

    def _run(self) -> None:
        try:
            torch.cuda.set_device(self._device)
            with torch.cuda.stream(self._stream):
                while not self._stopping.is_set():
                    self._fill()
        except BaseException as error:  # handed to whoever takes next
            self._ready.put(error)

    def _fill(self) -> None:
        missing = self._depth - self._ready.qsize()
        if 2 * missing < self._depth:
            time.sleep(0.002)
            return
        steps = [self._shards() for _ in range(missing)]
        started = time.perf_counter()
        loaded = self._loader.load_all(steps)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(self._stream)
        self.render_s += time.perf_counter() - started
        for step in loaded:
            self._ready.put((step, event))

    def close(self) -> None:
        """Stop the thread."""
        self._stopping.set()
        if self._threaded and self._thread.is_alive():
            self._thread.join(timeout=5.0)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, tuple):
        return [tensor for item in value for tensor in _tensors(item)]
    if isinstance(value, (Micro, Step)):
        return [tensor for item in vars(value).values() for tensor in _tensors(item)]
    return []
