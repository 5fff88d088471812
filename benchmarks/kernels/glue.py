"""Glue: what stands between a layer's projections and its attention, in one launch, beside torch's thirty.

Also the projections themselves, as one product of joined weights beside three, and the selection of small decoding
batches (scores included), in two launches beside the general way. Sizes are of the 30B model; memory holds
as many slots as tokens. ``launches`` are counted by torch's profiler. No goal is stated: the floor is that of bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from ceilings import ceilings
from timing import DEVICE, median_ms
from torch import Tensor

from keyeloop.model_backend.kernels.glue import Norms, Prepared, Projected, prepare
from keyeloop.model_backend.kernels.index_keys import IndexKeys
from keyeloop.model_backend.keye.indexer import IndexerMode
from keyeloop.model_backend.keye.quantise import hadamard, quantise
from keyeloop.model_backend.keye.rotary import Rotation

HIDDEN, HEADS, KV_HEADS, DIM, INDEX_HEADS, INDEX_DIM = 2048, 32, 4, 128, 16, 64
WIDTHS = [(HEADS + 2 * KV_HEADS) * DIM, INDEX_HEADS * (INDEX_DIM + 1), INDEX_DIM]
TOKENS = (1, 8192, 64, 8)
IN_GRAPH = 256
"""Up to so many tokens times are of work in a CUDA graph, as decoding runs it."""
CONFIGS = ((16, 4), (8, 4), (32, 4), (16, 2), (8, 1))
"""Query heads a program takes, and its warps."""
CONTEXTS, WIDTH, TOPK = (8192, 131072), 262144 + 64, 2048
FEW = ((16, 4096), (8, 4096), (16, 2048))
MODES: tuple[IndexerMode, ...] = ("exact", "fp8")
CLOSE = 0.03
"""Some roundings to bfloat16 of the largest number, where sums were taken in another order."""


class Layer:
    """One layer's tokens, norms and memory."""

    def __init__(self, tokens: int) -> None:
        torch.manual_seed(tokens)
        self.tokens = tokens
        self.projected = Projected(*torch.split(_values(tokens, sum(WIDTHS)), WIDTHS, 1))
        q, k, index_q, index_k, bias = (1 + _values(n) / 9 for n in (DIM, DIM, INDEX_DIM, INDEX_DIM, INDEX_DIM))
        self.norms = Norms(q, k, index_q, index_k, bias, 1e-6, 1e-6)
        self.main, self.index = (_rotation(tokens, dim) for dim in (DIM, INDEX_DIM))
        self.slots = torch.randperm(tokens, device=DEVICE)

    def memory(self, mode: IndexerMode) -> tuple[Tensor, Tensor, IndexKeys]:
        """Empty keys, values and index keys."""
        k, v = (_values(self.tokens, KV_HEADS, DIM).zero_() for _ in "kv")
        return k, v, IndexKeys.zeros(self.tokens, INDEX_DIM, mode, torch.bfloat16, DEVICE)

    def prepare(self, memory: tuple[Tensor, Tensor, IndexKeys], kernels: Any) -> Prepared:
        """Into this memory."""
        return prepare(self.projected, self.norms, self.main, self.index, *memory, self.slots, kernels=kernels)

    def nbytes(self, mode: IndexerMode) -> int:
        """Bytes that must move: projections and tables in, queries and memory out."""
        index = INDEX_DIM + 4 if mode == "fp8" else 2 * INDEX_DIM
        out = 2 * WIDTHS[0] + INDEX_HEADS * (index + (0 if mode == "fp8" else 4)) + index
        return self.tokens * (2 * sum(WIDTHS) + 4 * (DIM + INDEX_DIM) + out)


def _values(*shape: int) -> Tensor:
    return torch.randn(*shape, device=DEVICE).to(torch.bfloat16)


def _rotation(tokens: int, dim: int) -> Rotation:
    angle = torch.rand(tokens, 1, dim // 2, device=DEVICE) * 6
    cos, sin = angle.cos().to(torch.bfloat16), angle.sin().to(torch.bfloat16)
    return Rotation(torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1))


def rows(seconds: float) -> Iterator[dict[str, object]]:
    """Decoding of one request first, then a chunk of prefill; each in both modes."""
    stop = time.monotonic() + seconds
    yield from _selections(stop)
    for tokens in TOKENS:
        layer = Layer(tokens)
        for mode in MODES:
            if time.monotonic() < stop:
                yield from _prepared(layer, mode, stop)
        if time.monotonic() < stop:
            yield _projections(tokens)


def _prepared(layer: Layer, mode: IndexerMode, stop: float) -> Iterator[dict[str, object]]:
    from keyeloop.model_backend.kernels.jit import glue

    graph = layer.tokens <= IN_GRAPH
    memory = layer.memory(mode)
    row: dict[str, object] = {
        "kernel": "glue", "shape": f"T={layer.tokens}", "floor_ms": ceilings().floor_ms(layer.nbytes(mode)),
        "baseline": "torch", "baseline_ms": median_ms(lambda: layer.prepare(memory, "reference"), graph=graph),
    }  # fmt: skip
    if layer.tokens == 1:
        row["baseline_launches"] = launches(lambda: layer.prepare(memory, "reference"))
    usual = glue.HEADS_AT_ONCE, glue.WARPS
    for heads, warps in CONFIGS:
        if time.monotonic() > stop:
            break
        glue.HEADS_AT_ONCE, glue.WARPS = heads, warps
        found: dict[str, object] = {"variant": f"{mode} {heads} heads {warps} warps"}
        try:
            found["error"] = _error(layer, mode)
            found["ms"] = median_ms(lambda: layer.prepare(memory, "triton"), graph=graph)
            if layer.tokens == 1:
                found["launches"] = launches(lambda: layer.prepare(memory, "triton"))
        except Exception as problem:
            found["error"] = f"{type(problem).__name__}: {problem}"
        finally:
            glue.HEADS_AT_ONCE, glue.WARPS = usual
        yield row | found


def _error(layer: Layer, mode: IndexerMode) -> float | str:
    """Greatest difference from torch in parts of the greatest number; in mode fp8 rounding is right to the bit."""
    expected, found = layer.memory("exact"), layer.memory("exact")
    wanted, made = layer.prepare(expected, "reference"), layer.prepare(found, "triton")
    pairs = [(wanted.q, made.q), (expected[0], found[0]), (expected[1], found[1]),
             (expected[2].values, found[2].values), (_there(wanted.index_q), _there(made.index_q)),
             (_there(wanted.index_weight), _there(made.index_weight))]  # fmt: skip
    worst = max(float((one.float() - two.float()).abs().max() / one.float().abs().max()) for one, two in pairs)
    if not worst <= CLOSE:
        return f"wrong: off by {worst:.3g} of the greatest"
    if mode == "exact":
        return worst
    rounded = layer.memory("fp8")
    asked = layer.prepare(rounded, "triton")
    for plain, codes in ((found[2].values, rounded[2].values), (_there(made.index_q), _there(asked.index_q))):
        if not torch.equal(quantise(hadamard(plain))[0].view(torch.uint8), codes.view(torch.uint8)):
            return "wrong: codes differ from the model's rounding"
    _, scales = quantise(hadamard(_there(made.index_q)))
    if not torch.equal(_there(asked.index_weight), _there(made.index_weight) * scales.squeeze(-1)):
        return "wrong: gates differ"
    return worst


def _selections(stop: float) -> Iterator[dict[str, object]]:
    from keyeloop.model_backend.kernels import selecting, selecting_few
    from keyeloop.model_backend.kernels.jit import few

    torch.manual_seed(0)
    keys = IndexKeys(_values(CONTEXTS[-1], INDEX_DIM))
    for tokens, context in ((1, CONTEXTS[-1]), (1, CONTEXTS[0]), (8, CONTEXTS[-1])):
        table = torch.zeros(tokens, WIDTH, dtype=torch.int32, device=DEVICE)
        table[:, :context] = torch.randperm(context, device=DEVICE)
        rows = torch.arange(tokens, dtype=torch.int32, device=DEVICE)
        heads, gates = _values(tokens, INDEX_HEADS, INDEX_DIM), torch.randn(tokens, INDEX_HEADS, device=DEVICE)
        given = heads, gates, keys, table, rows, torch.full_like(rows, context - 1), TOPK
        expected = selecting.select(*given, one_each=True)
        row: dict[str, object] = {
            "kernel": "selection", "shape": f"T={tokens} of {context}", "baseline": "general",
            "baseline_ms": median_ms(lambda given=given: selecting.select(*given, one_each=True), graph=True),
            "baseline_launches": launches(lambda given=given: selecting.select(*given, one_each=True)),
        }  # fmt: skip
        zeros = torch.zeros(tokens, dtype=torch.int32, device=DEVICE)

        def choose(given: Any = given, zeros: Tensor = zeros) -> Tensor:
            return selecting_few.select(*given, one_each=True, zeros=zeros)

        usual = few.WARPS, few.SAMPLE
        for warps, sample in FEW:
            if time.monotonic() > stop:
                return
            few.WARPS, few.SAMPLE = warps, sample
            found: dict[str, object] = {"variant": f"few, {warps} warps, sample {sample}"}
            try:
                same = all(torch.equal(choose(), expected) for _ in range(20))
                found["error"] = "exact" if same else "wrong: other places"
                found["ms"] = median_ms(choose, graph=True)
                found["launches"] = launches(choose)
            except Exception as problem:
                found["error"] = f"{type(problem).__name__}: {problem}"
            finally:
                few.WARPS, few.SAMPLE = usual
            yield row | found


def _projections(tokens: int) -> dict[str, object]:
    x, joined = _values(tokens, HIDDEN), _values(sum(WIDTHS), HIDDEN)
    parts, graph = torch.split(joined, WIDTHS), tokens <= IN_GRAPH
    whole = torch.nn.functional.linear(x, joined)
    apart = torch.cat([torch.nn.functional.linear(x, part) for part in parts], 1)
    worst = float((whole.float() - apart.float()).abs().max() / apart.float().abs().max())
    nbytes = 2 * (joined.numel() + tokens * (HIDDEN + sum(WIDTHS)))
    return {
        "kernel": "projections", "shape": f"T={tokens}", "variant": "one product", "baseline": "three products",
        "ms": median_ms(lambda: torch.nn.functional.linear(x, joined), graph=graph),
        "baseline_ms": median_ms(lambda: [torch.nn.functional.linear(x, part) for part in parts], graph=graph),
        "floor_ms": ceilings().floor_ms(nbytes, bf16_flop=2.0 * tokens * joined.numel()),
        "error": worst if worst <= CLOSE else f"wrong: off by {worst:.3g} of the greatest",
    }  # fmt: skip


def launches(work: Callable[[], Any]) -> int | str:
    """Kernels, copies and fills that ``work`` starts on the device."""
    if DEVICE.type != "cuda":
        return "no device"
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as watched:
        work()
        torch.cuda.synchronize()
    return sum(1 for event in watched.events() if event.device_type == torch.autograd.DeviceType.CUDA)


def _there(x: Tensor | None) -> Tensor:
    assert x is not None
    return x
