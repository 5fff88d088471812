"""How long work takes on the device, alike for every kernel of the table."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
GRAPH_REPEATS = 10
FLUSH_BYTES = 256 << 20


def median_ms(
    call: Callable[[], Any], graph: bool = False, cold: bool = False, seconds: float = 0.2, times: int = 31
) -> float:
    """Median time of ``call`` by events on the device, after two calls that warm up and compile.

    ``graph`` times it as ten copies in one CUDA graph, for launches shorter than what the host needs to launch them;
    ``call`` must then neither allocate differently nor wait for the device. ``cold`` overwrites the L2 cache before
    each call (without it, and between copies in a graph, inputs that fit stay there). At most ``times`` calls and
    about ``seconds``, three at the least. A machine without CUDA measures by the wall clock, for trying a module only.
    """
    for _ in range(2):
        call()
    if DEVICE.type != "cuda":
        return _wall_ms(call)
    if graph:
        call = _captured(call)
        call()
    spoiled = torch.empty(FLUSH_BYTES if cold else 0, dtype=torch.int8, device=DEVICE)
    taken: list[float] = []
    stop = time.monotonic() + seconds
    while len(taken) < 3 or (len(taken) < times and time.monotonic() < stop):
        marks = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(3)]
        for before, after in marks:
            if cold:
                spoiled.zero_()
            before.record()
            call()
            after.record()
        torch.cuda.synchronize()
        taken += [before.elapsed_time(after) for before, after in marks]
    return statistics.median(taken) / (GRAPH_REPEATS if graph else 1)


def _captured(call: Callable[[], Any]) -> Callable[[], Any]:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(GRAPH_REPEATS):
            call()
    return graph.replay


def _wall_ms(call: Callable[[], Any]) -> float:
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        call()
        taken.append((time.perf_counter() - start) * 1e3)
    return statistics.median(taken)
