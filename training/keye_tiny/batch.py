"""From worker shards to device tensors: pinned copies, pictures rendered on the device, queues that never leave it idle."""

from __future__ import annotations

import multiprocessing
import os
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from training.keye_tiny.model import KeyeTiny
from training.keye_tiny.shape import TinyShape
from training.keye_tiny.supply import FRAME, MIXED_TOKENS, Buckets, PictureGroup, Shard, Source, Stock, work
from training.keye_tiny.vision import GridTables, to_patches

Render = Callable[[PictureGroup], Tensor]
"""Pixels [n, height, width, 3] uint8 on the device of the pictures of one group."""


class Pass(NamedTuple):
    """One run of the vision tower over pictures that share a padded grid."""

    patches: Tensor
    weights: Tensor
    cos: Tensor
    sin: Tensor
    mask: Tensor | None


@dataclass(frozen=True)
class Micro:
    """A shard on the device, pictures rendered; fields as in :class:`~training.keye_tiny.supply.Shard`."""

    reader: bool
    ids: Tensor
    positions: Tensor
    valid: Tensor
    families: Tensor
    loss_from: Tensor
    loss_to: Tensor
    loss_row: Tensor
    loss_answer: Tensor
    probes: Tensor
    passes: tuple[Pass, ...]
    seen_from: Tensor
    seen_to: Tensor


class Loader:
    """Moves shards to one device and cuts their pictures into passes of the vision tower."""

    def __init__(self, shape: TinyShape, buckets: Buckets, device: torch.device, render: Render) -> None:
        self._shape, self._buckets, self._device, self._render = shape, buckets, device, render
        self._grids = GridTables(shape, device)

    def load(self, shard: Shard) -> Micro:
        """The micro-batch of one shard."""

        def move(values: Any) -> Tensor:
            held = values if isinstance(values, Tensor) else torch.from_numpy(values)
            return held.to(self._device, non_blocking=True)

        lengths = move(shard.lengths)
        return Micro(
            reader=shard.reader,
            ids=move(shard.ids),
            positions=move(shard.positions),
            valid=torch.arange(shard.length, device=self._device) < lengths[:, None],
            families=move(shard.families),
            loss_from=move(shard.loss_from),
            loss_to=move(shard.loss_to),
            loss_row=move(shard.loss_row),
            loss_answer=move(shard.loss_answer),
            probes=move(shard.probes),
            passes=self.passes(shard.frames, shard.mixed),
            seen_from=move(shard.seen_from),
            seen_to=move(shard.seen_to),
        )

    @torch.no_grad()
    def passes(self, frames: PictureGroup | None, mixed: tuple[PictureGroup, ...]) -> tuple[Pass, ...]:
        """Frames in chunks of their own grid, everything else in padded, masked chunks."""
        found: list[Pass] = []
        if frames is not None:
            patches = _pad(to_patches(self._render(frames), self._shape), self._buckets.frame_chunk)
            weights, cos, sin = self._grids.of(*FRAME)
            found += [
                Pass(_scaled(chunk), weights, cos, sin, None) for chunk in patches.split(self._buckets.frame_chunk)
            ]
        if mixed:
            found += self._mixed(mixed)
        return tuple(found)

    def _mixed(self, groups: tuple[PictureGroup, ...]) -> list[Pass]:
        count = sum(group.count for group in groups)
        chunk = self._buckets.mixed_chunk
        rows = -(-count // chunk) * chunk
        longest = MIXED_TOKENS * self._shape.merge**2
        half = self._shape.vision_width // self._shape.vision_heads // 2
        patches = torch.zeros(rows, longest, 3 * self._shape.patch**2, dtype=torch.uint8, device=self._device)
        weights = torch.zeros(rows, longest, self._shape.table_side**2, device=self._device)
        cos = torch.ones(rows, 1, longest, half, device=self._device)
        sin = torch.zeros(rows, 1, longest, half, device=self._device)
        mask = torch.zeros(rows, longest, dtype=torch.bool, device=self._device)
        mask[count:, 0] = True
        at = 0
        for group in groups:
            cut = to_patches(self._render(group), self._shape)
            here, length = slice(at, at + group.count), cut.shape[1]
            grid_weights, grid_cos, grid_sin = self._grids.of(group.height, group.width)
            patches[here, :length] = cut
            weights[here, :length] = grid_weights
            cos[here, 0, :length] = grid_cos
            sin[here, 0, :length] = grid_sin
            mask[here, :length] = True
            at += group.count
        pieces = zip(*(values.split(chunk) for values in (patches, weights, cos, sin, mask)), strict=True)
        return [Pass(_scaled(a), b, c, d, e) for a, b, c, d, e in pieces]


def see(model: KeyeTiny, passes: tuple[Pass, ...]) -> Tensor | None:
    """The pool of visual tokens [n, hidden] of all passes, padding included; None without pictures."""
    if not passes:
        return None
    return torch.cat([model.mlp_AR(model.visual(*one)).flatten(0, 1) for one in passes])


def _scaled(patches: Tensor) -> Tensor:
    return patches.float().div_(127.5).sub_(1.0)


def _pad(patches: Tensor, chunk: int) -> Tensor:
    missing = -len(patches) % chunk
    return torch.cat((patches, patches.new_zeros(missing, *patches.shape[1:]))) if missing else patches


def pinned(shard: Shard) -> Shard:
    """The shard with its plain arrays as pinned tensors, for copies that do not wait."""
    moved = {
        item.name: torch.from_numpy(value).pin_memory()
        for item in fields(shard)
        if isinstance(value := getattr(shard, item.name), np.ndarray)
    }
    return replace(shard, **moved)


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
        max_uses: int = 2,
        depth: tuple[int, int] = (32, 12),
    ) -> None:
        self.waited_s, self.taken, self.reused = 0.0, 0, 0
        self._max_uses = max_uses
        self._kept: dict[bool, deque[tuple[Shard, int]]] = {False: deque(maxlen=96), True: deque(maxlen=48)}
        self._rng = random.Random(seed)
        self._stock = Stock(open_source(), buckets, seed) if workers == 0 else None
        self._difficulty_here = 0.0
        self._processes: list[Any] = []
        self._stopping = threading.Event()
        if workers:
            self._start(open_source, buckets, workers, seed, pin, depth)

    def _start(
        self,
        open_source: Callable[[], Source],
        buckets: Buckets,
        workers: int,
        seed: int,
        pin: bool,
        depth: tuple[int, int],
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["numpy", "training.keye_tiny.supply"])
        self._stop = context.Event()
        self._difficulty = context.Value("d", 0.0)
        self._remote = {False: context.Queue(depth[0]), True: context.Queue(depth[1])}
        self._local: dict[bool, queue.Queue[Any]] = {False: queue.Queue(6), True: queue.Queue(3)}
        for index in range(workers):
            arguments = (
                open_source, buckets, seed * 1000 + index, self._remote[False], self._remote[True], self._difficulty, self._stop
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
            found = self._local[reader].get_nowait()
        except queue.Empty:
            kept = self._kept[reader]
            if len(kept) >= 24:
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
