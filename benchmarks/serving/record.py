"""What a serving benchmark found, written to its JSON as it goes, and printed as tables."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

Row = dict[str, Any]
_PACKAGES = ("sglang", "sglang-kernel", "flashinfer-python", "transformers", "torch", "triton")


class Record:
    """One program's result file; every :meth:`put` writes it whole, so that a stopped program leaves its part."""

    def __init__(self, path: Path, seconds: float, **about: Any) -> None:
        """``seconds`` is how long the program may go on beginning new work."""
        self._path, self._began_s, self._limit_s = path, time.monotonic(), seconds
        self._found: dict[str, Any] = {**about, "machine": machine(), "date": datetime.now(UTC).date().isoformat()}
        path.parent.mkdir(parents=True, exist_ok=True)

    def put(self, name: str, value: Any) -> None:
        """Keep ``value`` under ``name``."""
        self._found[name] = value
        self._found["wall_s"] = round(time.monotonic() - self._began_s, 1)
        self._path.write_text(json.dumps(self._found, indent=1) + "\n", encoding="utf-8")

    def left_s(self) -> float:
        """Seconds before nothing new is to be begun."""
        return self._limit_s - (time.monotonic() - self._began_s)

    def say(self, text: str) -> None:
        """A line with the seconds so far."""
        print(f"[{time.monotonic() - self._began_s:6.1f} s] {text}", flush=True)


def show(title: str, rows: Sequence[Row]) -> None:
    """Print rows under their names."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names] + [[_spelled(row.get(name, "")) for name in names] for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    print(f"\n{title}")
    for line in cells:
        print("  " + "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)), flush=True)


def machine() -> Row:
    """Processor, GPUs and versions."""
    found: Row = {"cores": os.cpu_count(), "python": platform.python_version(), "gpus": gpus("name")}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def gpus(field: str) -> list[str]:
    """One field of every GPU as nvidia-smi tells it; empty where there is none."""
    try:
        told = subprocess.run(["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"],
                              capture_output=True, text=True, timeout=30, check=True)  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in told.stdout.splitlines() if line.strip()]


def _spelled(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
