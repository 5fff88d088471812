"""Where a step's time goes, measured on the device before training: printed so that a slow part shows at once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from training.keye_tiny.batch import Loader, Step
from training.keye_tiny.feed import Feeder
from training.keye_tiny.learn import Learner
from training.keye_tiny.recipe import Recipe

REPEATS = 4


class Launches(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operators that compute something: about the kernels that an uncompiled run would launch."""

    FREE = tuple(
        "view reshape expand permute transpose slice select split unbind unsqueeze squeeze detach alias empty t. lift "
        "chunk as_strided unfold".split()
    )

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.__name__
        if not name.startswith(self.FREE):
            self.found[name] += 1
        return function(*args, **(kwargs or {}))


def profile(learner: Learner, loader: Loader, feeder: Feeder, recipe: Recipe) -> Iterator[str]:
    """Lines of milliseconds: until the host is done and until the device is done. Forgets the gradients it makes."""
    shards = [feeder.take(False)] * recipe.main_shards + [feeder.take(True)] * recipe.reader_shards
    step = loader.load(shards)
    mains = replace(step, micros=tuple(micro for micro in step.micros if not micro.reader))
    readers = replace(step, micros=tuple(micro for micro in step.micros if micro.reader))

    def learn(part: Step) -> None:
        learner.backward(part, 0.0, sparse=False)

    def look() -> None:
        pool = learner.see(step)
        assert pool is not None
        pool.float().mean().backward()  # type: ignore[no-untyped-call]

    pictures = sum(len(one.patches) for one in step.passes)
    yield f"profile: {len(step.passes)} vision passes of {pictures} pictures, padding included"
    parts: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("render and load one step", lambda: loader.load(shards)),
        ("render and load four steps together", lambda: loader.load_all([shards] * 4)),
        ("vision alone, forward and backward", look),
        ("trajectories, with all the vision", lambda: learn(mains)),
        ("readers, with all the vision", lambda: learn(readers)),
        ("the whole step", lambda: learn(step)),
    )
    for name, run in parts:
        host, done = _timed(run, learner.device)
        yield f"profile: {name}: host {host:.0f} ms, done {done:.0f} ms"
    learner.forget()


def _timed(run: Callable[[], Any], device: torch.device) -> tuple[float, float]:
    """Milliseconds a call, the first one left out."""
    wait = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    host = done = 0.0
    for repeat in range(REPEATS + 1):
        wait()  # type: ignore[no-untyped-call]
        started = time.perf_counter()
        run()
        returned = time.perf_counter()
        wait()  # type: ignore[no-untyped-call]
        if repeat:
            host += (returned - started) / REPEATS * 1e3
            done += (time.perf_counter() - started) / REPEATS * 1e3
    return host, done
