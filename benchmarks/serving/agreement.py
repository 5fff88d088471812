"""A served model's distributions beside the torch reference's, with full width and few layers, in both indexer modes.

    python benchmarks/serving/agreement.py --model MODELS/cut --out OUT --seconds 240

The measure is the reference in float32. The server computes in bfloat16; how far the reference itself strays when it
does so is printed beside it, and the bound is half as much again: more would be an error, not rounding. Compared are
log-probabilities of 512 tokens behind the last 64 places of the prompt (prefill, in chunks) and behind 15 generated
tokens (decoding, in CUDA graphs on a GPU). ``--model`` needs weights: see ``folders.py --write cut``.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from record import Record, Row, show
from reference_run import ReferenceRun
from servers import LAST_PLAIN_ID, Serving, random_ids, serving
from torch import Tensor

from keyeloop.model_backend.keye.indexer import IndexerMode

LENGTHS = (1024, 3072, 20480)
PLACES, NEW_TOKENS, WATCHED = 64, 16, 512
BOUND = 1.5
"""Most of the reference's own rounding error in bfloat16, mean over places and tokens, that a server may show."""
MODES: tuple[IndexerMode, ...] = ("exact", "fp8")


@dataclass(frozen=True)
class Told:
    """What a server said of one prompt."""

    mode: IndexerMode
    ids: list[int]
    """The prompt and all generated tokens but the last."""
    places: range
    """Behind which places of ``ids`` the rows stand."""
    rows: Tensor
    """[places, watched] log-probabilities."""
    decoded: int
    """How many of the last rows come from decoding."""


def ask(server: Serving, mode: IndexerMode, length: int, watched: list[int]) -> Told:
    """One prompt, cold."""
    server.forget()
    prompt = random_ids(length, length)
    reply = server.ask(prompt, NEW_TOKENS, return_logprob=True, logprob_start_len=length - PLACES,
                       token_ids_logprob=watched)  # fmt: skip
    meta: Mapping[str, Any] = reply["meta_info"]
    rows = [row for row in meta["input_token_ids_logprobs"] if row] + meta["output_token_ids_logprobs"]
    by_token = [{int(entry[1]): float(entry[0]) for entry in row} for row in rows]
    values = torch.tensor([[row[token] for token in watched] for row in by_token])
    ids = [*prompt, *reply["output_ids"][: NEW_TOKENS - 1]]
    return Told(mode, ids, range(len(ids) - len(rows), len(ids)), values, NEW_TOKENS - 1)


def compare(told: Told, watched: list[int], exact: ReferenceRun, rounded: ReferenceRun) -> Row:
    """The server's and the rounded reference's distance from the exact one."""
    columns = torch.tensor(watched)
    truth = exact.logprobs(told.ids, told.places, told.mode)
    own = rounded.logprobs(told.ids, told.places, told.mode)[:, columns.to(truth.device)].cpu()
    best, truth = truth.argmax(-1).tolist(), truth[:, columns.to(truth.device)].cpu()
    served, reference = (told.rows - truth).abs(), (own - truth).abs()
    first = told.rows.shape[0] - told.decoded
    generated = told.ids[told.places.start + first :]
    return {
        "length": len(told.ids) - told.decoded, "indexer": told.mode, "places": told.rows.shape[0],
        "prefill mean": served[:first].mean().item(), "decode mean": served[first:].mean().item(),
        "worst": served.max().item(), "torch bf16 mean": reference.mean().item(),
        "torch bf16 worst": reference.max().item(), "spread": truth.std().item(),
        "greedy": f"{sum(a == b for a, b in zip(best[first - 1 :], generated, strict=False))}/{told.decoded}",
        "ok": bool(served.mean() <= BOUND * reference.mean() + 1e-4 and torch.isfinite(told.rows).all()),
    }  # fmt: skip


def main() -> int:
    """Serve in each mode, then compute the reference; 1 where a bound is missed."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", type=Path, required=True)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--seconds", type=float, default=240)
    options.add_argument("--lengths", type=int, nargs="*", default=list(LENGTHS))
    options.add_argument("--modes", nargs="*", choices=MODES, default=list(MODES))
    options.add_argument("--flags", default="", help="more flags for SGLang, in one string")
    options.add_argument("--cpu", action="store_true")
    given = options.parse_args()
    record = Record(given.out / "agreement.json", given.seconds, model=given.model.name, bound=BOUND)
    device = torch.device("cpu" if given.cpu else "cuda")
    watched = sorted(random.Random(1).sample(range(LAST_PLAIN_ID), WATCHED))
    flags = ["--context-length", str(max(given.lengths) + 64), "--max-total-tokens", "66000",
             "--cuda-graph-max-bs-decode", "2", "--chunked-prefill-size", "4096", *given.flags.split()]  # fmt: skip
    asked: list[Told] = []
    for mode in given.modes:
        if record.left_s() < 0:
            break
        log = given.out / f"agreement-{mode}.log"
        with serving("keye", given.model, record, log, flags=flags, dummy=False, cpu=given.cpu,
                     environment={"KEYELOOP_INDEXER": mode}) as server:  # fmt: skip
            record.put(f"keyeloop {mode}", server.info().get("keyeloop"))
            for length in given.lengths:
                asked.append(ask(server, mode, length, watched))
                record.say(f"asked {length} tokens, {mode}")
    exact = ReferenceRun(given.model, torch.float32, device)
    rounded = ReferenceRun(given.model, torch.bfloat16, device)
    rows: list[Row] = []
    for told in asked:
        rows.append(compare(told, watched, exact, rounded))
        record.put("rows", rows)
        record.say(f"compared: {rows[-1]}")
    show("distance of log-probabilities from the reference in float32", rows)
    return 0 if rows and all(row["ok"] for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
