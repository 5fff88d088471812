"""Time to first token and decode speed of one server at several lengths of context.

    python benchmarks/serving/speed.py --server keye --model MODELS/full --out OUT --seconds 300

``--server`` is ``keye`` (our plugin, sparse), ``flashinfer`` or ``triton`` (stock SGLang, a dense model of the same
size from MODELS/dense). One request at a time through ``/generate`` with token ids, weights random, radix cache emptied
before each; every length is asked once to warm up (kernels compile then) and once to count. ``speed_table.py`` puts the
files of several servers beside each other.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from record import Record, Row, gpus, show
from servers import KINDS, Serving, random_ids, serving

LENGTHS = (8192, 32768, 131072, 262144)
ROOM = 128
"""Tokens left free at the end of the longest context."""


def measure(server: Serving, length: int, new_tokens: int, seed: int) -> Row:
    """One request of ``length`` tokens, nothing of it cached."""
    server.forget()
    asked = server.stream(random_ids(length, seed), new_tokens)
    cached = int(asked.meta.get("cached_tokens", 0))
    if cached > length // 8:
        raise SystemExit(f"{cached} of {length} tokens came from the cache: this is no cold prompt")
    return {"first_s": round(asked.first_s, 3), "prefill_tokens_per_s": round(length / asked.first_s),
            "decode_ms": round(asked.token_ms, 2)}  # fmt: skip


def batch(server: Serving, length: int, requests: int, new_tokens: int) -> Row:
    """Several contexts of ``length`` decoding together: their prompts are cached, then all are asked at once."""
    from concurrent.futures import ThreadPoolExecutor

    server.forget()
    prompts = [random_ids(length, 1000 + number) for number in range(requests)]
    for prompt in prompts:
        server.ask(prompt, 1)
    with ThreadPoolExecutor(requests) as pool:
        asked = list(pool.map(lambda prompt: server.stream(prompt, new_tokens), prompts))
    step_ms = max(one.token_ms for one in asked)
    return {"requests": requests, "length": length, "step_ms": round(step_ms, 2),
            "tokens_per_s": round(1000 * requests / step_ms)}  # fmt: skip


def main() -> int:
    """Start, measure while there is time, print, write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--server", choices=sorted(KINDS), required=True)
    options.add_argument("--model", type=Path, required=True, help="folder of folders.py")
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--seconds", type=float, default=300, help="nothing new begins later than this")
    options.add_argument("--lengths", type=int, nargs="*", default=list(LENGTHS))
    options.add_argument("--new-tokens", type=int, default=64)
    options.add_argument("--batch", type=int, nargs=2, metavar=("REQUESTS", "LENGTH"), help="also decode a batch")
    options.add_argument("--indexer", choices=("exact", "fp8"), default="exact")
    options.add_argument("--name", help="file name; the server's kind by default")
    options.add_argument("--flags", default="", help="more flags for SGLang, in one string")
    options.add_argument("--cpu", action="store_true")
    given = options.parse_args()
    name = given.name or given.server
    record = Record(given.out / f"speed-{name}.json", given.seconds, server=given.server, indexer=given.indexer,
                    model=given.model.name, flags=given.flags)  # fmt: skip
    longest = max(given.lengths) + (ROOM if max(given.lengths) < LENGTHS[-1] else 0)
    flags = ["--context-length", str(longest), "--cuda-graph-max-bs-decode", "16", *given.flags.split()]
    rows: list[Row] = []
    with serving(given.server, given.model, record, given.out / f"speed-{name}.log", flags=flags, cpu=given.cpu,
                 environment={**os.environ, "KEYELOOP_INDEXER": given.indexer}) as server:  # fmt: skip
        info = server.info()
        record.put("start_s", round(server.start_s, 1))
        record.put("max_total_tokens", info.get("memory_usage", {}).get("token_capacity"))
        record.put("memory", {"used_mib": gpus("memory.used"), "server": info.get("memory_usage")})
        record.put("keyeloop", info.get("keyeloop"))
        for length in given.lengths:
            tokens = min(length, LENGTHS[-1] - ROOM)
            row: Row = {"length": length}
            for run in ("warm-up", "counted"):
                if run == "counted" and record.left_s() < 1.3 * float(row.get("warm_up_s", 0)):
                    record.say(f"no time for the counted run at {length}: the warm-up stands")
                    row["counted"] = False
                    break
                if record.left_s() < 0:
                    break
                found = measure(server, tokens, given.new_tokens, seed=length + len(run))
                record.say(f"{length} {run}: {found}")
                row |= found if run == "counted" else {"warm_up_s": found["first_s"], **found}
            if "first_s" in row:
                rows.append(row)
                record.put("rows", rows)
        if given.batch and record.left_s() > 0:
            record.put("batch", batch(server, given.batch[1], given.batch[0], given.new_tokens))
        record.put("keyeloop_after", server.info().get("keyeloop"))
    show(f"{name}: time to first token (s), decode (ms a token)", rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
