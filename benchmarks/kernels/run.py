"""Every kernel beside its baselines on one GPU: one run, one table, floors from that run's own ceilings.

    PYTHONPATH=src:. python benchmarks/kernels/run.py [--only NAME ...] [--seconds S] --out DIR

A module beside this file yields its rows one by one (see README.md); each is printed and kept at once in
``DIR/kernels-NAME.json``. A module that breaks, or is missing, ends alone.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from ceilings import ceilings
from timing import DEVICE

HERE = Path(__file__).resolve().parent
MODULES = ("scores", "topk", "prefill", "moe", "glue")


def run_module(name: str, seconds: float, out: Path, machine: dict[str, Any]) -> list[dict[str, Any]]:
    """All rows of one module, printed and saved as they come; its exception is kept and ends it."""
    result: dict[str, Any] = machine | {"module": name, "seconds_allowed": seconds, "rows": []}
    file = out / f"kernels-{name}.json"
    if not (HERE / f"{name}.py").is_file():
        print(f"{name}: no such module, skipped", flush=True)
        return []
    began = time.monotonic()
    try:
        produce = importlib.import_module(name).rows
        made: Iterator[dict[str, Any]] = iter(produce(seconds))
        for row in made:
            result["rows"].append(row)
            result["seconds"] = round(time.monotonic() - began, 1)
            save(file, result)
            print(f"{name} {time.monotonic() - began:6.1f} s  {spelled_row(row)}", flush=True)
    except Exception as error:
        result["exception"] = traceback.format_exc()
        print(f"{name}: {type(error).__name__}: {error}", flush=True)
    result["seconds"] = round(time.monotonic() - began, 1)
    save(file, result)
    if DEVICE.type == "cuda":
        try:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
        except RuntimeError as error:  # a broken context says so at every later call; the table is still wanted
            print(f"{name} left the device broken: {error}", flush=True)
    return list(result["rows"])


def save(file: Path, result: dict[str, Any]) -> None:
    """Replaces the file whole, so that an end at any moment leaves a readable one."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(result, indent=1, default=str) + "\n", encoding="utf-8")
    part.replace(file)


def machine_said() -> dict[str, Any]:
    """Hardware, versions and ceilings of this run."""
    said: dict[str, Any] = {"python": platform.python_version(), "torch": torch.__version__}
    if find_spec("triton") is not None:
        said["triton"] = importlib.import_module("triton").__version__
    if DEVICE.type == "cuda":
        device = torch.cuda.get_device_properties(DEVICE)
        said |= {"device": device.name, "memory_gib": round(device.total_memory / 2**30, 1),
                 "processors": device.multi_processor_count, "cuda": torch.version.cuda}  # fmt: skip
    else:
        said["device"] = "cpu, for trying a module only"
    git = subprocess.run(["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    said["commit"] = git.stdout.strip() or os.environ.get("COMMIT", "unknown")
    said["ceilings"] = asdict(ceilings())
    return said


def table(rows: list[dict[str, Any]]) -> str:
    """Rows under the names of all their cells."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names] + [[spelled(row.get(name, "")) for name in names] for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells)


def spelled(value: Any) -> str:
    """A cell."""
    return f"{value:.4g}" if isinstance(value, float) else str(value).split("\n", 1)[0][:90]


def spelled_row(row: dict[str, Any]) -> str:
    """A row on one line."""
    return "  ".join(f"{name}={spelled(value)}" for name, value in row.items())


def main() -> int:
    """The exit code is 1 where a module broke or a row holds something wrong."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", nargs="+", default=list(MODULES), metavar="NAME", help=f"of {', '.join(MODULES)}")
    options.add_argument("--seconds", type=float, default=60.0, help="time of each module, compiling included")
    options.add_argument("--out", type=Path, required=True, help="folder for kernels-NAME.json")
    chosen = options.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    machine = machine_said()
    print("  ".join(f"{name}={value}" for name, value in machine.items()), flush=True)
    every = {name: run_module(name, chosen.seconds, chosen.out, machine) for name in chosen.only}
    good = True
    for name, rows in every.items():
        file = chosen.out / f"kernels-{name}.json"
        broke = file.is_file() and "exception" in json.loads(file.read_text(encoding="utf-8"))
        good &= not broke and not any(str(row.get("error", "")).startswith("wrong") for row in rows)
        if rows:
            print(f"\n{name}\n{table(rows)}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
