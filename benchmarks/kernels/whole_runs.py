"""Runs of a whole model that are timed: a prompt read in chunks, tokens decoded one after the other in a CUDA graph."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from itertools import pairwise

import torch
from timing import DEVICE
from torch import Tensor
from whole_choices import choices
from whole_layers import Dense, Memory, Model, Step

GPU = DEVICE.type == "cuda"
CLOSE = 0.03
"""Largest relative error of a layer's output in bfloat16: the median of some tokens, as a near tie of experts is one
token's affair."""
CHECKED = 64
"""Last tokens of a pass that are computed in torch as well."""


def reading(
    model: Model, memory: Memory, context: int, chunk: int, shared: float | None = None, dense: Dense | None = None
) -> list[Step]:
    """One request's prompt in chunks; with ``shared`` all layers attend to the same random places."""
    slots = memory.slots[:context] if dense is None else torch.arange(context, dtype=torch.int32, device=DEVICE)
    table, steps, topk = slots.unsqueeze(0), [], model.config.indexer.topk
    for start in range(0, context, chunk):
        stop = min(start + chunk, context)
        chosen = None if shared is None else choices(start, stop - start, topk, shared, DEVICE)
        positions = torch.arange(start, stop, dtype=torch.int32, device=DEVICE)
        step = Step(table, torch.zeros_like(positions), positions, slots[start:stop],
                    *model.turned(slice(start, stop)), one_each=False, max_tokens=stop, chosen=chosen,
                    dense=dense)  # fmt: skip
        steps.append(step)
    return steps


def read_ms(model: Model, memory: Memory, ids: Tensor, steps: Sequence[Step], layers: int | None = None) -> list[float]:
    """Milliseconds of each chunk through all layers, or the first ``layers``; the last one gives a token as well."""
    marks = [_now()]
    for step in steps:
        start = (step.max_tokens or 0) - len(step.rows)
        hidden = model.forward(ids[start : start + len(step.rows)], step, memory, layers)
        if step is steps[-1]:
            model.logits(hidden[-1:]).argmax(-1)
        marks.append(_now())
    return _between(marks)


def layer_error(model: Model, memory: Memory, ids: Tensor, step: Step) -> float | str:
    """How far the first layer's change of the last tokens lies from torch's; ``wrong`` where that is too far."""
    x, layer, tokens = torch.nn.functional.embedding(ids, model.embedding), model.layers[0], min(CHECKED, len(ids))
    made = layer.forward(x.clone(), step, memory, 0, model.config)[-tokens:] - x[-tokens:]
    last = step.last(tokens, "reference")
    exact = layer.forward(x[-tokens:].clone(), last, memory, 0, model.config) - x[-tokens:]
    error = float(((made - exact).float().norm(dim=1) / exact.float().norm(dim=1)).median())
    return error if error < CLOSE else f"wrong: relative error {error:.3g}"


class Decoding:
    """Requests that go on token by token, greedily; each step writes where the next one begins."""

    def __init__(self, model: Model, memory: Memory, requests: int, context: int, room: int) -> None:
        """All requests read one ``context``; ``room`` tokens of each are its own."""
        own = memory.slots[context : context + requests * room].view(requests, room)
        self.table = torch.cat((memory.slots[:context].expand(requests, -1), own), 1).contiguous()
        self.model, self.memory, self.context = model, memory, context
        self.rows = torch.arange(requests, dtype=torch.int32, device=DEVICE)
        self.positions, self.zeros = torch.full_like(self.rows, context), torch.zeros_like(self.rows)
        self.ids = torch.zeros(requests, dtype=torch.int64, device=DEVICE)
        self.graph: torch.cuda.CUDAGraph | None = None

    def given(self) -> Step:
        """The next step, by tensors alone."""
        places = self.positions.long()
        slots = self.table.gather(1, places.unsqueeze(1)).squeeze(1)
        return Step(self.table, self.rows, self.positions, slots, *self.model.turned(places), one_each=True,
                    zeros=self.zeros)  # fmt: skip

    def step(self) -> None:
        """One token of each request."""
        logits = self.model.logits(self.model.forward(self.ids, self.given(), self.memory))
        self.ids.copy_(logits.argmax(-1))
        self.positions.add_(1)

    def begin(self) -> None:
        """Back to the end of the context, with the same tokens."""
        self.positions.fill_(self.context)
        self.ids.copy_(torch.arange(len(self.ids), device=DEVICE) % self.model.config.vocab_size)

    def capture(self) -> None:
        """After steps that compile, a step becomes a graph; without CUDA there is none."""
        self.begin()
        if not GPU:
            return
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                self.step()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.step()

    def run(self, steps: int) -> tuple[float, Tensor]:
        """Median milliseconds of a step, and the tokens of each [steps, requests], from the end of the context on."""
        self.begin()
        marks, found = [_now()], []
        for _ in range(steps):
            if self.graph is None:
                self.step()
            else:
                self.graph.replay()
            marks.append(_now())
            found.append(self.ids.clone())
        return statistics.median(_between(marks)), torch.stack(found)


Mark = torch.cuda.Event | float


def _now() -> Mark:
    if not GPU:
        return time.perf_counter()
    mark = torch.cuda.Event(enable_timing=True)
    mark.record()
    return mark


def _between(marks: Sequence[Mark]) -> list[float]:
    """Milliseconds from each mark to the next."""
    if GPU:
        torch.cuda.synchronize()
    found = []
    for before, after in pairwise(marks):
        if isinstance(before, float) or isinstance(after, float):
            assert isinstance(before, float)
            assert isinstance(after, float)
            found.append((after - before) * 1e3)
        else:
            found.append(before.elapsed_time(after))
    return found
