"""The whole language model of Keye-VL-2.0-30B-A3B on this project's kernels alone: prefill and decode on one GPU.

    PYTHONPATH=src:. python benchmarks/kernels/whole_model.py --out DIR [--seconds S] [--mode fp8|exact] [--small]

All 48 layers at full size with random bfloat16 weights made on the device (61 GB), paged memory whose pages lie
shuffled, no server around it. Rows come most telling first, are printed and kept in ``DIR/kernels-whole_model.json`` as
they are measured, and the program ends by itself after about S seconds: a run that would not fit is done with 4 layers
and multiplied, as its row then says. ``--small``, and any machine without CUDA, takes tiny sizes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ceilings import ceilings
from run import machine_said, save, spelled_row, table
from timing import DEVICE
from torch import Tensor
from whole_layers import PAGE, Dense, Memory, Model, Step, small_config
from whole_runs import Decoding, layer_error, read_ms, reading

from keyeloop.model_backend.kernels.index_keys import bytes_per_token
from keyeloop.model_backend.kernels.unions import union_sizes
from keyeloop.model_backend.keye.config import KeyeConfig
from keyeloop.model_backend.keye.indexer import IndexerMode
from keyeloop.model_backend.keye.presets import keye_30b

Row = dict[str, Any]
FEW_LAYERS = 4
"""What is timed where the time left does not allow all layers."""
SLACK = 1.3
"""A run begins when this many times what it should take is left."""
GOALS_MS = {
    (1, None): 6.0, (64, None): 64 / 2.5,
    (131072, 0.0): 6500.0, (131072, 0.9): 4000.0, (262144, 0.0): 15000.0, (262144, 0.9): 9000.0,
}  # fmt: skip
"""Of requests that decode, 64 of them 2,500 tokens a second; of tokens read, with what their neighbours share."""


@dataclass(frozen=True)
class Sizes:
    """What is run."""

    config: KeyeConfig
    context: int = 131072
    long: int = 262144
    chunk: int = 8192
    batch: int = 64
    room: int = 128
    steps: int = 60
    dtype: torch.dtype = torch.bfloat16

    @property
    def slots(self) -> int:
        """Of memory: the longest prompt, or a shared context and what each request adds."""
        return -(-max(self.long, self.context + self.batch * self.room) // PAGE) * PAGE


def small() -> Sizes:
    """The same runs of a model of 3 layers."""
    return Sizes(small_config(), context=256, long=512, chunk=64, batch=4, room=8, steps=4, dtype=torch.float32)


class Runs:
    """The model in memory, and every run of it as a row."""

    def __init__(self, sizes: Sizes, mode: IndexerMode, stop: float) -> None:
        self.sizes, self.mode, self.stop = sizes, mode, stop
        torch.manual_seed(0)
        most = max(sizes.long, sizes.context + sizes.room)
        self.model = Model(sizes.config, 0, sizes.dtype, DEVICE, most)
        self.memory = Memory.of(sizes.config, sizes.slots, mode, sizes.dtype, DEVICE)
        self.ids = torch.randint(sizes.config.vocab_size, (sizes.long,), device=DEVICE)

    def decode(self, requests: int) -> Row:
        """A step of requests on one context, whose memory holds random numbers; places are chosen for real."""
        sizes, config = self.sizes, self.sizes.config
        decoding = Decoding(self.model, self.memory, requests, sizes.context, sizes.room)
        decoding.begin()
        row: Row = {"error": layer_error(self.model, self.memory, decoding.ids, decoding.given())}
        decoding.capture()
        ms, tokens = decoding.run(sizes.steps)
        same = torch.equal(tokens, decoding.run(sizes.steps)[1])
        if not same:
            row["error"] = "wrong: other tokens the second time"
        seen = sizes.context * config.num_hidden_layers
        kept = 1 - (1 - min(1.0, config.indexer.topk / sizes.context)) ** requests
        nbytes = self.weights_read(requests) + seen * (
            bytes_per_token(config.indexer.head_dim, self.mode, sizes.dtype)
            + 2 * kept * config.num_key_value_heads * config.head_dim * sizes.dtype.itemsize
        )
        return row | {
            "ms": ms, "goal_ms": self.goal((requests, None)), "floor_ms": ceilings().floor_ms(nbytes),
            "tokens/s": requests / ms * 1e3, "layers timed": self.layers_said(None), "twice the same tokens": same,
            "variant": "CUDA graph, head and next token included" if decoding.graph else "no graph",
            "parts of a layer": self.parts(decoding.ids, decoding.given()),
        }  # fmt: skip

    def prefill(self, context: int, shared: float | None = None, dense: Dense | None = None) -> Row:
        """A whole prompt; one layer reads it twice before: to compile, then to know how long it takes."""
        steps = reading(self.model, self.memory, context, self.sizes.chunk, shared, dense)
        ids = self.ids[:context]
        row: Row = {"error": layer_error(self.model, self.memory, ids[-len(steps[-1].rows) :], steps[-1])}
        read_ms(self.model, self.memory, ids, steps, 1)
        one_s = sum(read_ms(self.model, self.memory, ids, steps, 1)) / 1e3
        every = self.sizes.config.num_hidden_layers
        left = self.stop - time.monotonic()
        layers = next((n for n in (every, FEW_LAYERS, 1) if n <= every and one_s * n * SLACK < left), 1)
        each = [ms * every / layers for ms in read_ms(self.model, self.memory, ids, steps, layers)]
        goal_ms = None if dense else self.goal((context, shared))
        row |= {"ms": sum(each), "goal_ms": goal_ms, "floor_ms": self.prefill_floor(context, shared, dense),
                "tokens/s": context / sum(each) * 1e3, "second chunk ms": each[1], "last chunk ms": each[-1],
                "layers timed": self.layers_said(layers),
                "parts of a layer": self.parts(ids[-len(steps[-1].rows) :], steps[-1])}  # fmt: skip
        if shared is not None:
            chosen = steps[-1].chosen
            assert chosen is not None
            sizes = union_sizes(chosen[-min(1024, len(chosen)) :], 8).float()
            row["union of 8 / k"] = float(sizes.mean()) / self.sizes.config.indexer.topk
            row["variant"] = f"{shared:.0%} shared, given: the same lists in every layer"
        else:
            row["variant"] = f"dense, {dense}" if dense else f"chosen by the indexer, {self.mode}"
        return row

    def parts(self, ids: Tensor, step: Step) -> str:
        """Milliseconds of each kernel of a layer, its embedding among them; nothing without CUDA."""
        if DEVICE.type != "cuda":
            return ""
        from topk import profiled

        found = profiled(lambda: self.model.forward(ids, step, self.memory, 1))
        return ", ".join(f"{name} {taken:.3g}" for name, taken in found)

    def goal(self, run: tuple[int, float | None]) -> float | None:
        """Of full sizes."""
        return GOALS_MS.get(run) if self.sizes.config.num_hidden_layers == keye_30b().num_hidden_layers else None

    def weights_read(self, tokens: int) -> float:
        """Bytes of all weights, experts as far as this many tokens reach them."""
        config, experts = self.sizes.config, sum(x.w13.nbytes + x.w2.nbytes for x in self.model.layers)
        reached = 1 - (1 - config.num_experts_per_tok / config.num_experts) ** tokens
        return sum(self.model.bytes()) - experts * (1 - reached)

    def prefill_floor(self, context: int, shared: float | None, dense: Dense | None) -> float:
        """By the products that are wanted: projections, experts, attention, and scores where places are chosen."""
        config, layer = self.sizes.config, self.model.layers[0]
        part = config.num_experts_per_tok / config.num_experts
        used = layer.joined.numel() + layer.out.numel() + layer.gate.numel()
        if dense:
            used -= layer.joined[layer.widths[0] :].numel()
        used += int(part * (layer.w13.numel() + layer.w2.numel()))
        pairs, few = context * (context + 1) / 2, min(context, config.indexer.topk)
        attended = pairs if dense else few * (few + 1) / 2 + (context - few) * few
        flop = 2.0 * used * context + 4.0 * attended * config.num_attention_heads * config.head_dim
        scored = (
            0.0 if dense or shared is not None else 2.0 * pairs * config.indexer.num_heads * config.indexer.head_dim
        )
        exact, rounded = (scored, 0.0) if self.mode == "exact" else (0.0, scored)
        return config.num_hidden_layers * ceilings().floor_ms(bf16_flop=flop + exact, fp8_flop=rounded)

    def layers_said(self, layers: int | None) -> str:
        """For a row."""
        every = self.sizes.config.num_hidden_layers
        many = every if layers is None else layers
        return f"{many} of {every}" + ("" if many == every else ", multiplied")


def rows(seconds: float, sizes: Sizes | None = None, mode: IndexerMode = "fp8") -> Iterator[Row]:
    """The most telling first; what breaks is a row with its error, and the next run begins."""
    stop = time.monotonic() + seconds
    sizes = sizes or (Sizes(keye_30b()) if DEVICE.type == "cuda" else small())
    with torch.inference_mode():
        runs = Runs(sizes, mode, stop)
        context, long = sizes.context, sizes.long
        wanted: list[tuple[str, Callable[..., Row], tuple[Any, ...]]] = [
            (f"1 request at {spelled(context)}", runs.decode, (1,)),
            (f"{sizes.batch} requests on one {spelled(context)}", runs.decode, (sizes.batch,)),
            *((spelled(context), runs.prefill, (context, shared)) for shared in (0.0, 0.9, None)),
            (spelled(context), runs.prefill, (context, None, "cudnn" if DEVICE.type == "cuda" else "torch")),
            *((spelled(long), runs.prefill, (long, shared)) for shared in (0.0, 0.9)),
            *((spelled(context), runs.prefill, (context, shared)) for shared in (0.5, 0.8, 0.95)),
            *((spelled(long), runs.prefill, (long, shared)) for shared in (None, 0.5, 0.8, 0.95)),
            (spelled(context), runs.prefill, (context, None, "flash" if DEVICE.type == "cuda" else "torch")),
        ]
        for shape, work, how in wanted:
            if time.monotonic() > stop:
                return
            row: Row = {"kernel": f"whole model, {work.__name__}", "shape": shape}
            try:
                row |= work(*how)
            except Exception as problem:
                row["error"] = f"{type(problem).__name__}: {problem}"
            yield row


def spelled(tokens: int) -> str:
    """Of a context."""
    return f"{tokens // 1024}K tokens" if tokens % 1024 == 0 else f"{tokens} tokens"


def main() -> int:
    """The exit code is 1 where a row holds an error."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True, help="folder for kernels-whole_model.json")
    options.add_argument("--seconds", type=float, default=150.0, help="no run begins later, or when it would not fit")
    options.add_argument("--mode", choices=("fp8", "exact"), default="fp8", help="of the indexer")
    options.add_argument("--small", action="store_true", help="tiny sizes, as without CUDA")
    chosen = options.parse_args()
    began = time.monotonic()
    chosen.out.mkdir(parents=True, exist_ok=True)
    result = machine_said() | {"module": "whole_model", "seconds_allowed": chosen.seconds, "rows": []}
    print("  ".join(f"{name}={value}" for name, value in result.items() if name != "rows"), flush=True)
    sizes = small() if chosen.small else None
    for row in rows(chosen.seconds - (time.monotonic() - began), sizes, chosen.mode):
        result["rows"].append(row)
        result["seconds"] = round(time.monotonic() - began, 1)
        save(chosen.out / "kernels-whole_model.json", result)
        print(f"{time.monotonic() - began:6.1f} s  {spelled_row(row)}", flush=True)
    print("\n" + table(result["rows"]))
    return 0 if all(isinstance(row["error"], float) for row in result["rows"]) else 1


if __name__ == "__main__":
    sys.exit(main())
