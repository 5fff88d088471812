"""The index path that a server runs, held against float64 with layer inputs forced equal, in both indexer modes.

    python benchmarks/serving/index_agreement.py --model MODELS/cut --out OUT

The torch reference runs a prompt; what goes into each layer's indexer is kept, and from there on both sides compute:
keys stored in paged memory, queries rounded, scores, selection, by the operations that the server uses on this device,
beside the same in float64. Scores must lie within ``2^-17`` (mode exact) or ``2^-12`` (mode fp8: Hopper's tensor cores
keep 13 to 14 bits) of the sum of what is added up; a chosen place may miss the true set only within twice that of its
boundary. Overlaps are told, not judged: with the true set of the same rounded numbers, with that of float64
throughout, and of the two modes with each other.
"""

from __future__ import annotations

import argparse
import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from record import Record, Row, show
from reference_run import ReferenceRun
from servers import random_ids
from torch import Tensor

from keyeloop.model_backend.kernels import ops
from keyeloop.model_backend.kernels.index_keys import IndexKeys
from keyeloop.model_backend.keye.indexer import IndexerMode
from keyeloop.model_backend.keye.rotary import SectionedRotary
from keyeloop.model_backend.keye.selection import select
from keyeloop.model_backend.sglang.plugin.rotary import Rotary

LENGTHS = (1024, 3072, 20480)
QUERIES = 128
BITS = {"exact": 2.0**-17, "fp8": 2.0**-12}
MODES: tuple[IndexerMode, ...] = ("exact", "fp8")


@dataclass(frozen=True)
class Chosen:
    """What one layer's last queries chose in one mode, and how far from the truth."""

    places: Tensor
    """[queries, topk] int32, -1 where fewer."""
    row: Row


class Paged:
    """Index keys of one request in memory whose slots are shuffled, as a server's are."""

    def __init__(self, keys: Tensor, mode: IndexerMode) -> None:
        tokens, dim = keys.shape
        self.slots = torch.randperm(tokens + 99, device=keys.device)[:tokens]
        self.index = IndexKeys.zeros(tokens + 99, dim, mode, keys.dtype, keys.device)
        ops.store_index_keys(self.index, keys, self.slots)
        self.table = torch.zeros(2, (tokens + 15) // 16 * 16, dtype=torch.int32, device=keys.device)
        self.table[1, :tokens] = self.slots

    def exact(self) -> tuple[Tensor, Tensor]:
        """What is stored, in float64, in order: keys [S, D] and scales [S]."""
        index = self.index
        keys = index.values.view(torch.uint8)[self.slots].view(index.values.dtype) if index.scales is not None else (
            index.values[self.slots]
        )  # fmt: skip
        scales = torch.ones(len(self.slots), device=keys.device) if index.scales is None else index.scales[self.slots]
        return keys.double(), scales.double()


@torch.inference_mode()
def choose(indexer: Any, x: Tensor, rotary: Rotary, positions: Tensor, mode: IndexerMode, topk: int) -> Chosen:
    """Run the served path on ``x`` [T, hidden] and measure it."""
    tokens = x.shape[0]
    _, rotation = rotary(positions, x.dtype)
    asked = indexer.queries(x, rotation, "exact")
    paged = Paged(indexer.keys(x, rotation, "exact"), mode)
    first = max(0, tokens - QUERIES)
    heads, gates = asked.heads[first:].to(x.dtype).contiguous(), asked.gates[first:].contiguous()
    index_q, weights = ops.index_queries(heads, gates, mode)
    rows = torch.ones(tokens - first, dtype=torch.int32, device=x.device)
    places = torch.arange(first, tokens, dtype=torch.int32, device=x.device)
    chosen = ops.select(
        index_q, weights, paged.index, paged.table, rows, places, topk, max_tokens=tokens, one_each=False
    )
    keys, scales = paged.exact()
    truth, room = exact_scores(index_q.double(), weights.double(), keys, scales, BITS[mode])
    seen = torch.arange(tokens, device=x.device) <= places.unsqueeze(1)
    truth = truth.masked_fill(~seen, -torch.inf)
    taken = as_mask(chosen, tokens)
    true = as_mask(select(truth.clone(), topk, places.long() + 1), tokens)
    row: Row = {"overlap": overlap(taken, true), "wrong": wrong(truth, room, taken, seen, topk)}
    if x.is_cuda and tokens > topk:
        row["score error / bound"] = score_error(index_q, weights, paged, rows, places, topk, truth, room)
    return Chosen(chosen, row)


def exact_scores(q: Tensor, weights: Tensor, keys: Tensor, scales: Tensor, bits: float) -> tuple[Tensor, Tensor]:
    """Scores [Q, S] in float64, and the error that their sums may have."""
    found, room = [], []
    for one, weight in zip(q, weights, strict=True):
        found.append(((one @ keys.t()).relu() * weight.unsqueeze(1)).sum(0) * scales)
        room.append((one.abs() @ keys.abs().t() * weight.abs().unsqueeze(1)).sum(0) * scales * bits)
    return torch.stack(found), torch.stack(room)


def wrong(truth: Tensor, room: Tensor, taken: Tensor, seen: Tensor, topk: int) -> int:
    """Places chosen, or left out, that lie farther beyond the boundary than rounding explains."""
    if truth.shape[1] <= topk:
        return int((taken != seen).sum())
    boundary = truth.topk(topk, -1).values[:, -1:]
    slack = 2 * room.masked_fill(~seen, 0.0).amax(-1, keepdim=True)
    full = boundary.isfinite()
    outside = taken & (truth < boundary - slack) & full
    inside = ~taken & seen & ((truth > boundary + slack) | ~full)
    return int((outside | inside).sum())


def score_error(
    index_q: Tensor, weights: Tensor, paged: Paged, rows: Tensor, places: Tensor, topk: int, truth: Tensor, room: Tensor
) -> float:
    """Largest error of the kernel's scores, in parts of what it may be."""
    from keyeloop.model_backend.kernels.jit import scores as scoring

    out = torch.full((len(rows), paged.table.shape[1]), torch.nan, device=rows.device)
    scoring.scores(index_q, weights, paged.index, paged.table, rows, places, topk, out, one_each=False)
    out = out[:, : truth.shape[1]].double()
    judged = truth.isfinite() & (places >= topk).unsqueeze(1)
    return float(((out - truth).abs() / room.clamp_min(1e-30))[judged].max())


def as_mask(places: Tensor, tokens: int) -> Tensor:
    """[queries, tokens] booleans of chosen places, -1 for none."""
    wide = torch.zeros(places.shape[0], tokens + 1, dtype=torch.bool, device=places.device)
    return wide.scatter_(1, torch.where(places < 0, tokens, places).long(), True)[:, :tokens]


def overlap(one: Tensor, other: Tensor) -> float:
    """Mean part of a query's places that two sets share."""
    return float(((one & other).sum(-1) / other.sum(-1).clamp_min(1)).mean())


@torch.inference_mode()
def float64_sets(indexer: Any, x: Tensor, positions: Tensor, config: Any) -> Tensor:
    """[queries, T] booleans: the places chosen with all of the indexer in float64."""
    wide = copy.deepcopy(indexer).double()
    shapes = ((config.indexer.head_dim, config.index_mrope_section),)
    (rotation,) = SectionedRotary(config.rope_theta, shapes)(positions, torch.float64)
    first = max(0, x.shape[0] - QUERIES)
    asked, keys = wide.queries(x.double(), rotation, "exact"), wide.keys(x.double(), rotation, "exact")
    scales = torch.ones(len(keys), dtype=torch.float64, device=keys.device)
    truth, _ = exact_scores(asked.heads[first:], asked.gates[first:], keys, scales, 0.0)
    lengths = torch.arange(first + 1, len(keys) + 1, device=x.device)
    return as_mask(select(truth, config.indexer.topk, lengths), len(keys))


def main() -> int:
    """Every length, layer and mode; 1 where a place is wrong or a score out of its bound."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", type=Path, required=True)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--seconds", type=float, default=120)
    options.add_argument("--lengths", type=int, nargs="*", default=list(LENGTHS))
    options.add_argument("--cpu", action="store_true")
    given = options.parse_args()
    record = Record(given.out / "index_agreement.json", given.seconds, model=given.model.name, queries=QUERIES)
    device = torch.device("cpu" if given.cpu else "cuda")
    reference = ReferenceRun(given.model, torch.float32 if given.cpu else torch.bfloat16, device)
    config = reference.model.config
    rotary, topk = Rotary(config).to(device), config.indexer.topk
    rows: list[Row] = []
    for length in given.lengths:
        if record.left_s() < 0:
            break
        positions = reference.positions(length)
        for layer, x in enumerate(reference.attention_inputs(random_ids(length, length))):
            indexer = reference.indexers()[layer]
            found = {mode: choose(indexer, x, rotary, positions, mode, topk) for mode in MODES}
            true = float64_sets(indexer, x, positions, config)
            sets = {mode: as_mask(one.places, length) for mode, one in found.items()}
            for mode, one in found.items():
                rows.append({"length": length, "layer": layer, "indexer": mode, **one.row,
                             "overlap float64": overlap(sets[mode], true),
                             "overlap of modes": overlap(sets["exact"], sets["fp8"])})  # fmt: skip
        record.put("rows", rows)
        record.say(f"{length} done")
    show(f"the last {QUERIES} queries of a prompt", rows)
    return 0 if rows and all(row["wrong"] == 0 and row.get("score error / bound", 0.0) <= 1.0 for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
