"""How much adjacent queries choose in common: union sizes of 8, 16 and 32 of them, layer by layer, on real input.

    PYTHONPATH=src python benchmarks/kernels/overlap.py [--model FOLDER] [--video FILE] [--text FILE] [--question TEXT]

asks the question of any checkpoint that the local engine loads, in plain torch, on the CPU or one GPU, and looks at all
that passes its layers in groups (prompts and tool results, not the tokens it writes one by one). A union is given in
parts of ``topk``: 1 where neighbours choose the same places, their number where they share none. Queries that see no
more than ``topk`` places choose nothing and are left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from keyeloop import Agent
from keyeloop.model_backend.kernels.unions import mean_overlap, union_sizes
from keyeloop.model_backend.keye import decoder
from keyeloop.model_backend.keye.selection import select
from keyeloop.model_backend.local.engine import LocalBackend
from keyeloop.runtime.budget import Limits

NEIGHBOURS = (8, 16, 32)
DEMO = Path(decoder.__file__).resolve().parents[2] / "tools" / "demo_video" / "board.mp4"
Choices = dict[int, list[list[Tensor]]]


@contextmanager
def choices_noted() -> Iterator[Choices]:
    """What every layer chooses meanwhile: its passes, each in the pieces [R, topk] in which it was chosen."""
    noted: Choices = {}
    layer = 0

    def enter(module: nn.Module, _: Any) -> None:
        nonlocal layer
        if isinstance(module, decoder.Attention):
            layer = module.layer
            noted.setdefault(layer, []).append([])

    def noting(scores: Tensor, k: int, lengths: Tensor) -> Tensor:
        chosen = select(scores, k, lengths)
        noted[layer][-1].append(chosen.cpu())
        return chosen

    hook = register_module_forward_pre_hook(enter)
    try:
        with mock.patch.object(decoder, "select", noting):
            yield noted
    finally:
        hook.remove()


def layer_rows(noted: Choices) -> list[dict[str, Any]]:
    """One row a layer: queries, overlap of neighbours, and mean and 90th percentile of union sizes in parts of topk."""
    table = []
    for layer in sorted(noted):
        passes = [torch.cat(pieces) for pieces in noted[layer] if pieces]
        if not passes:
            continue
        topk = passes[0].shape[1]
        weights = [len(chosen) - 1 for chosen in passes]
        shared = sum(mean_overlap(chosen) * weight for chosen, weight in zip(passes, weights, strict=True) if weight)
        row: dict[str, Any] = {"layer": layer, "queries": sum(len(chosen) for chosen in passes), "topk": topk,
                               "overlap": shared / max(1, sum(weights))}  # fmt: skip
        for neighbours in NEIGHBOURS:
            sizes = torch.cat([union_sizes(chosen, neighbours) for chosen in passes]).double() / topk
            if len(sizes):
                row[f"union of {neighbours}"] = float(sizes.mean())
                row[f"90 % of {neighbours}"] = float(sizes.quantile(0.9))
        table.append(row)
    return table


def show(table: list[dict[str, Any]]) -> None:
    """Prints the table and the mean over layers."""
    names = list(table[0])
    mean = {name: statistics.fmean(row[name] for row in table if name in row) for name in names} | {"layer": "mean"}
    for row in [dict.fromkeys(names, None) | {name: name for name in names}, *table, mean]:
        cells = [row.get(name, "") for name in names]
        print("  ".join((f"{x:.3f}" if isinstance(x, float) else str(x)).rjust(12) for x in cells))


def main() -> int:
    """Runs the question to its end and prints what was chosen on the way."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", default="keye-tiny", help="folder of a checkpoint, or keye-tiny")
    options.add_argument("--video", type=Path, default=DEMO, help="shown whole in the first message")
    options.add_argument("--no-video", action="store_true")
    options.add_argument("--text", type=Path, help="a text file that stands before the question")
    options.add_argument("--question", default="What number is on the board at 20 s?")
    options.add_argument("--watch", default="whole", choices=("whole", "overview", "none"))
    options.add_argument("--turns", type=int, default=1, help="requests to the model, at most")
    options.add_argument("--out", type=Path, help="a JSON file for the table")
    given = options.parse_args()
    question = given.question if given.text is None else given.text.read_text(encoding="utf-8") + "\n" + given.question
    video = None if given.no_video else given.video
    with tempfile.TemporaryDirectory() as runs, choices_noted() as noted:
        agent = Agent(LocalBackend.load(given.model), limits=Limits(turns=given.turns), runs=runs)
        agent.run_sync(question, video=video, watch="none" if video is None else given.watch)
    table = layer_rows(noted)
    if not table:
        print("no query saw more than topk places: give a longer video or text", file=sys.stderr)
        return 1
    print(f"{given.model}: {given.question!r} {'without a video' if video is None else video.name}")
    show(table)
    if given.out is not None:
        given.out.write_text(json.dumps({"model": given.model, "layers": table}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
