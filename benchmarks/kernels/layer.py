"""Sparse-attention kernels on one NVIDIA GPU: right to the bit or within bounds, and how fast beside dense attention.

Run ``PYTHONPATH=src python benchmarks/kernels/layer.py --out FOLDER`` from the repository; torch and triton are enough.
Prints tables and writes ``kernels.json``. A section that fails is recorded and the others go on; one that would begin
after ``--seconds`` is skipped. Activations are random: neighbours share no choices, the worst case for caches.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import layer_checks as checks
import torch
import torch.nn.functional as F
import triton
from layer_checks import captured
from layer_problems import GPU, HEAD_DIM, HEADS, INDEX_DIM, INDEX_HEADS, KV_HEADS, TOPK, Row
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from keyeloop.model_backend.kernels import ops
from keyeloop.model_backend.kernels.index_keys import IndexKeys
from keyeloop.model_backend.kernels.jit import scores as scoring
from keyeloop.model_backend.kernels.jit import topk as selection

CONTEXTS, CHUNK, BATCHES, WIDTH = (8192, 32768, 131072), 2048, (1, 8, 64), 262144 + 64
REFERENCE_QUERIES = 64
BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}


def milliseconds(work: Callable[[], Any], times: int = 7) -> float:
    """Median time on the device, after two runs that warm up."""
    for _ in range(2):
        work()
    marks = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(times)]
    for start, stop in marks:
        start.record()
        work()
        stop.record()
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(stop) for start, stop in marks)


def graph_milliseconds(work: Callable[[], Any], repeats: int = 10) -> float:
    """The same for small work: ``repeats`` of it in one CUDA graph."""
    graph, _ = captured(lambda: [work() for _ in range(repeats)])
    return milliseconds(graph.replay) / repeats


class Memory:
    """``batch`` requests of ``context`` tokens each, in pages of 64 slots that are shuffled, and their queries."""

    def __init__(self, batch: int, context: int, queries: int) -> None:
        torch.manual_seed(0)
        total, tokens = batch * context, batch * queries
        pages = torch.randperm(total // 64, device=GPU).view(batch, -1, 1) * 64 + torch.arange(64, device=GPU)
        self.table = torch.zeros(batch, WIDTH, dtype=torch.int32, device=GPU)
        self.table[:, :context] = pages.view(batch, context)
        self.rows = torch.arange(batch, dtype=torch.int32, device=GPU).repeat_interleave(queries)
        self.positions = torch.arange(context - queries, context, dtype=torch.int32, device=GPU).repeat(batch)
        self.k = torch.empty(total, KV_HEADS, HEAD_DIM, dtype=torch.bfloat16, device=GPU).normal_()
        self.v = torch.empty_like(self.k).normal_()
        self.q = torch.randn(tokens, HEADS, HEAD_DIM, dtype=torch.bfloat16, device=GPU)
        keys = torch.empty(total, INDEX_DIM, dtype=torch.bfloat16, device=GPU).normal_()
        self.slots = torch.arange(total, device=GPU)
        self.heads = torch.randn(tokens, INDEX_HEADS, INDEX_DIM, dtype=torch.bfloat16, device=GPU)
        self.gates = torch.randn(tokens, INDEX_HEADS, device=GPU) * INDEX_DIM**-0.5
        self.index, self.asked = {}, {}
        for mode in ("exact", "fp8"):
            self.index[mode] = IndexKeys.zeros(total, INDEX_DIM, mode, torch.bfloat16, GPU)  # type: ignore[arg-type]
            ops.store_index_keys(self.index[mode], keys, self.slots)
            self.asked[mode] = ops.index_queries(self.heads, self.gates, mode)  # type: ignore[arg-type]
        self.new_keys = keys[:tokens].contiguous()
        self.shape = (batch, context, queries)

    def select(self, mode: str, first: int = 0, **how: Any) -> Tensor:
        """Chosen places of the queries from ``first`` on."""
        q, weights = (x[first:] for x in self.asked[mode])
        return ops.select(
            q, weights, self.index[mode], self.table, self.rows[first:], self.positions[first:], TOPK, **how
        )

    def attend(self, chosen: Tensor, first: int = 0, **how: Any) -> Tensor:
        """Attention of the same queries."""
        return ops.sparse_attention(
            self.q[first:], self.k, self.v, self.table, self.rows[first:], chosen, HEAD_DIM**-0.5, **how
        )

    def enter(self, mode: str) -> None:
        """What comes before selection: new keys stored, queries prepared."""
        ops.store_index_keys(self.index[mode], self.new_keys, self.slots[: len(self.new_keys)])
        ops.index_queries(self.heads, self.gates, mode)  # type: ignore[arg-type]

    def dense(self) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values for dense attention over all of the context."""
        batch, context, queries = self.shape
        k, v = (x.view(batch, context, KV_HEADS, HEAD_DIM).transpose(1, 2) for x in (self.k, self.v))
        return self.q.view(batch, queries, HEADS, HEAD_DIM).transpose(1, 2), k, v


def dense_milliseconds(memory: Memory, clock: Callable[[Callable[[], Any]], float]) -> dict[str, float]:
    """Dense attention of the same queries by each of torch's fast backends."""
    q, k, v = memory.dense()
    found = {}
    for name, backend in BACKENDS.items():
        try:
            with sdpa_kernel(backend):
                found[name] = clock(lambda: F.scaled_dot_product_attention(q, k, v, enable_gqa=True))
        except RuntimeError as error:
            print(f"  dense {name}: {str(error).splitlines()[0]}")
    return found


def speed_prefill(context: int) -> list[Row]:
    """The last chunk of a prompt, one layer; the reference is timed on a few queries and scaled."""
    memory = Memory(1, context, CHUNK)
    dense = dense_milliseconds(memory, milliseconds)
    room = torch.empty(CHUNK, context, device=GPU)
    chosen, out = memory.select("exact", max_tokens=context), torch.empty(CHUNK, TOPK, dtype=torch.int32, device=GPU)
    attention = milliseconds(lambda: memory.attend(chosen))
    first, scaled = CHUNK - REFERENCE_QUERIES, CHUNK / REFERENCE_QUERIES
    slow_attention = milliseconds(lambda: memory.attend(chosen[first:], first, kernels="reference"), 3) * scaled
    table = []
    for mode in ("exact", "fp8"):
        part = (*memory.asked[mode], memory.index[mode], memory.table, memory.rows, memory.positions, TOPK, room)
        row: Row = {"context": context, "mode": mode, "enter ms": milliseconds(lambda m=mode: memory.enter(m))}  # type: ignore[misc]
        row["score ms"] = milliseconds(lambda p=part: scoring.scores(*p, one_each=False))  # type: ignore[misc]
        row["top-k ms"] = milliseconds(lambda: selection.top_positions(room, memory.positions, TOPK, out))
        row["select ms"] = milliseconds(lambda m=mode: memory.select(m, max_tokens=context))  # type: ignore[misc]
        row["attend ms"], row["sum ms"] = attention, row["enter ms"] + row["select ms"] + attention
        slow = milliseconds(lambda m=mode: memory.select(m, first, kernels="reference"), 3) * scaled  # type: ignore[misc]
        row |= {f"dense {name} ms": value for name, value in dense.items()}
        row["x reference"] = (slow + slow_attention) / (row["select ms"] + attention)
        row["x dense"] = min(dense.values(), default=float("nan")) / row["sum ms"]
        table.append(row)
    row["torch.topk ms"] = milliseconds(lambda: room.topk(TOPK, -1, sorted=False), 3)
    return table


def speed_decode(context: int, batch: int) -> list[Row]:
    """One step of a batch of separate contexts, one layer, in a CUDA graph with a table for 256K tokens."""
    memory = Memory(batch, context, 1)
    dense = dense_milliseconds(memory, graph_milliseconds)
    chosen = memory.select("exact")
    attention = graph_milliseconds(lambda: memory.attend(chosen))
    slow_attention = milliseconds(lambda: memory.attend(chosen, kernels="reference"), 3)
    table = []
    for mode in ("exact", "fp8"):
        row: Row = {"context": context, "batch": batch, "mode": mode}
        row["enter ms"] = graph_milliseconds(lambda m=mode: memory.enter(m))  # type: ignore[misc]
        row["select ms"] = graph_milliseconds(lambda m=mode: memory.select(m, one_each=True))  # type: ignore[misc]
        row["attend ms"], row["sum ms"] = attention, row["enter ms"] + row["select ms"] + attention
        slow = milliseconds(lambda m=mode: memory.select(m, kernels="reference"), 3)  # type: ignore[misc]
        row |= {f"dense {name} ms": value for name, value in dense.items()}
        row["x reference"] = (slow + slow_attention) / (row["select ms"] + attention)
        row["x dense"] = min(dense.values(), default=float("nan")) / row["sum ms"]
        table.append(row)
    return table


def show(title: str, table: list[Row]) -> None:
    """Prints rows under the names of the first."""
    print(f"\n{title}")
    names = list(dict.fromkeys(name for row in table for name in row))
    cells = [names] + [[spelled(row.get(name, "")) for name in names] for row in table]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    for line in cells:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)), flush=True)


def spelled(value: Any) -> str:
    """A cell."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> int:
    """Runs every section; the exit code is 1 where a check failed or a section broke."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, required=True, help="folder for kernels.json")
    options.add_argument("--seconds", type=float, default=110.0, help="no section begins later than this")
    options.add_argument("--only", default="", help="sections whose name holds this text")
    chosen = options.parse_args()
    began = time.monotonic()
    sections: dict[str, Callable[[], list[Row]]] = {
        name[6:].replace("_", " "): work for name, work in vars(checks).items() if name.startswith("check_")
    }
    for context in CONTEXTS:
        sections[f"speed prefill {context}"] = lambda c=context: speed_prefill(c)  # type: ignore[misc]
    for context in CONTEXTS:
        for batch in BATCHES:
            sections[f"speed decode {context} x {batch}"] = lambda c=context, b=batch: speed_decode(c, b)  # type: ignore[misc]
    device = torch.cuda.get_device_properties(0)
    result: dict[str, Any] = {
        "device": device.name, "memory_gib": round(device.total_memory / 2**30, 1), "torch": torch.__version__,
        "cuda": torch.version.cuda, "triton": triton.__version__, "python": platform.python_version(), "sections": {},
    }  # fmt: skip
    print({name: value for name, value in result.items() if name != "sections"})
    chosen.out.mkdir(parents=True, exist_ok=True)
    good = True
    for name, work in sections.items():
        start = time.monotonic()
        if chosen.only not in name:
            continue
        if start - began > chosen.seconds:
            result["sections"][name] = {"skipped": f"after {start - began:.0f} s"}
            print(f"\n{name}: skipped")
            continue
        try:
            table = work()
            torch.cuda.synchronize()
            result["sections"][name] = {"rows": table, "seconds": time.monotonic() - start}
            good &= all(row.get("ok", True) for row in table)
            show(f"{name} ({time.monotonic() - start:.1f} s)", table)
        except Exception as error:
            result["sections"][name] = {"error": traceback.format_exc()}
            good = False
            print(f"\n{name}: {type(error).__name__}: {error}", flush=True)
        torch.cuda.empty_cache()
        (chosen.out / "kernels.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(f"\n{'all checks passed' if good else 'SOMETHING FAILED'} in {time.monotonic() - began:.0f} s")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
