"""Hardware counters of the kernels that take most of a prefill chunk, as Nsight Compute reads them.

    PYTHONPATH=src:. python benchmarks/kernels/counters.py --out DIR

Needs ``ncu`` and the right to read counters. Each case runs in a process of its own under the profiler, once to compile
and once to be read; writes ``DIR/kernels-counters.json`` and prints what was read. Clocks are left alone.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

QUERIES, ATTENDED, SELECTED, SHARED = 8192, 131072, 262144, 0.9
SECTIONS = ("SpeedOfLight", "ComputeWorkloadAnalysis", "MemoryWorkloadAnalysis", "WarpStateStats", "Occupancy",
            "LaunchStats")  # fmt: skip
KERNELS = {"selection": "_mark", "attention": "_attend_block", "lists": "_unite"}
"""The kernel that is read in each case."""
LIMIT_S = 60


def selection() -> Callable[[], Any]:
    """Scoring and choosing of 8,192 queries over 256K places, e4m3."""
    from index_case import IndexCase

    from keyeloop.model_backend.kernels import ops

    case = IndexCase.of("fp8", SELECTED, QUERIES)
    return lambda: ops.select(*case.given, max_tokens=SELECTED, one_each=False)


def attention() -> Callable[[], Any]:
    """Attention of 8,192 queries over 128K places, of whose choices neighbours share nine tenths."""
    from chosen_case import Case

    from keyeloop.model_backend.kernels import ops

    case = Case(1, ATTENDED, QUERIES)
    chosen = case.choices(SHARED)
    return lambda: ops.sparse_attention(
        case.q, case.k, case.v, case.table, case.rows, chosen, case.scale, max_tokens=ATTENDED, one_each=False
    )


CASES: dict[str, Callable[[], Callable[[], Any]]] = {
    "selection": selection, "attention": attention, "lists": attention,
}  # fmt: skip


def read(name: str) -> dict[str, Any]:
    """What the profiler says of one case: metrics by section, and ``error`` where it says nothing."""
    command = "ncu --clock-control none --csv --page details --launch-skip 1 --launch-count 1 --kernel-name".split()
    command.append(f"regex:^{KERNELS[name]}$")
    command += [word for section in SECTIONS for word in ("--section", section)]
    command += [sys.executable, __file__, "--case", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"error": str(error)[:500]}
    lines = [line for line in done.stdout.splitlines() if line.startswith('"')]
    found: dict[str, Any] = {}
    for row in csv.DictReader(io.StringIO("\n".join(lines))):
        if row.get("Metric Name"):
            found.setdefault(row["Section Name"], {})[row["Metric Name"]] = (
                f"{row['Metric Value']} {row['Metric Unit']}"
            )
    return found or {"error": (done.stdout + done.stderr)[-800:]}


def main() -> int:
    """The exit code is 1 where nothing was read."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, default=Path())
    options.add_argument("--case", choices=sorted(CASES), help="only run this, for the profiler")
    given = options.parse_args()
    if given.case:
        work = CASES[given.case]()
        for _ in range(2):
            work()
        torch.cuda.synchronize()
        return 0
    cases: dict[str, dict[str, Any]] = {}
    result = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "cases": cases}
    given.out.mkdir(parents=True, exist_ok=True)
    for name in CASES:
        cases[name] = {"kernel": KERNELS[name], **read(name)}
        (given.out / "kernels-counters.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(name, json.dumps(cases[name], indent=1), flush=True)
    return int(any("error" in case for case in cases.values()))


if __name__ == "__main__":
    sys.exit(main())
