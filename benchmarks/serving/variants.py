"""One server variant's tokens, log-probabilities, memory and speed, to be held against another's.

    python benchmarks/serving/variants.py --name tp1 --model MODELS/full --out OUT
    python benchmarks/serving/variants.py --name tp2 --flags "--tp-size 2" --against tp1 --model MODELS/full --out OUT
    python benchmarks/serving/variants.py --name fp8 --flags "--quantization fp8" --against tp1 --model ... --out OUT

Weights are random and the same in every variant (see ``--load-format dummy`` of the plugin), prompts too. Greedy tokens
after random weights part as soon as rounding tips one close call, so agreement is told as tokens equal until then, and
as the distance of the log-probabilities of the same prompts, beside their spread.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from record import Record, Row, gpus, show
from servers import Serving, random_ids, serving

LENGTHS = (600, 3000, 9000)
LAST, NEW_TOKENS = 256, 32
SPEED_TOKENS = 8192


def prompt_of(server: Serving, length: int) -> Row:
    """Log-probabilities of a prompt's last tokens, and the greedy tokens behind it."""
    server.forget()
    told = server.ask(random_ids(length, length), NEW_TOKENS, return_logprob=True, logprob_start_len=length - LAST)
    meta: dict[str, Any] = told["meta_info"]
    given = [entry[0] for entry in meta["input_token_logprobs"] if entry[0] is not None]
    return {"length": length, "tokens": told["output_ids"], "logprobs": [round(float(one), 5) for one in given]}


def compare(mine: list[Row], others: list[Row]) -> list[Row]:
    """Prompt by prompt."""
    rows: list[Row] = []
    for one, other in zip(mine, others, strict=True):
        apart = [abs(a - b) for a, b in zip(one["logprobs"], other["logprobs"], strict=True)]
        pairs = zip(one["tokens"], other["tokens"], strict=True)
        same = next((number for number, (a, b) in enumerate(pairs) if a != b), len(one["tokens"]))
        rows.append({"length": one["length"], "mean distance": fmean(apart), "worst": max(apart),
                     "spread": pstdev(one["logprobs"]), "equal tokens": f"{same}/{len(one['tokens'])}"})  # fmt: skip
    return rows


def main() -> int:
    """Serve one variant, keep what it says, compare it where another is named."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--name", required=True)
    options.add_argument("--model", type=Path, required=True)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--against", help="name of a variant that was run into the same folder")
    options.add_argument("--flags", default="", help="more flags for SGLang, in one string")
    options.add_argument("--seconds", type=float, default=200)
    options.add_argument("--lengths", type=int, nargs="*", default=list(LENGTHS))
    options.add_argument("--speed-tokens", type=int, default=SPEED_TOKENS)
    options.add_argument("--checkpoint", action="store_true", help="read the folder's weights; random ones otherwise")
    options.add_argument("--cpu", action="store_true")
    given = options.parse_args()
    record = Record(given.out / f"variant-{given.name}.json", given.seconds, flags=given.flags, model=given.model.name)
    flags = ["--context-length", "40960", "--cuda-graph-max-bs-decode", "4", *given.flags.split()]
    prompts: list[Row] = []
    log = given.out / f"variant-{given.name}.log"
    with serving("keye", given.model, record, log, flags=flags, cpu=given.cpu, dummy=not given.checkpoint) as up:
        info = up.info()
        record.put("start_s", round(up.start_s, 1))
        record.put("memory", {"used_mib": gpus("memory.used"), "server": info.get("memory_usage")})
        record.put("keyeloop", info.get("keyeloop"))
        for length in given.lengths:
            prompts.append(prompt_of(up, length))
            record.put("prompts", prompts)
        for run in ("warm-up", "counted"):
            up.forget()
            asked = up.stream(random_ids(given.speed_tokens, len(run)), 64)
            speed = {"length": given.speed_tokens, "first_s": asked.first_s, "decode_ms": asked.token_ms}
            record.put("speed", speed)
    show(f"{given.name}: memory {gpus('memory.total')} MiB, in use while serving", [
        {"weights GB": (info.get("memory_usage") or {}).get("weight"), **speed}
    ])  # fmt: skip
    if given.against:
        other = json.loads((given.out / f"variant-{given.against}.json").read_text(encoding="utf-8"))
        rows = compare(prompts, other["prompts"])
        record.put(f"against {given.against}", rows)
        show(f"{given.name} against {given.against}: log-probabilities of the same tokens", rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
