"""A new kernel's first run, in a process of its own: what hangs or writes astray there spoils nothing here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def said_apart(module: str, seconds: float = 40.0) -> str:
    """The last line that ``module`` beside this file says when run, or ``failed: `` and why it ended."""
    file = Path(__file__).with_name(f"{module}.py")
    try:
        ran = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"failed: not done in {seconds:g} s"
    lines = (ran.stdout if ran.returncode == 0 else ran.stderr).strip().splitlines() or [""]
    return lines[-1] if ran.returncode == 0 else f"failed: {lines[-1]}"
