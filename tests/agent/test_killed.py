"""A run with tools in a sandbox, killed with SIGKILL at random instants: its record opens, and it is gone on with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from keyeloop.sandbox import availability

ROOT = Path(__file__).resolve().parents[2]
BOARD = ROOT / "tools" / "demo_video" / "board.mp4"
KILLED = 4


@pytest.mark.sandbox
def test_killed_at_random_instants_every_run_comes_to_its_end(tmp_path: Path) -> None:
    """``python -m tests.agent.killed_runs FOLDER 200 SEED VIDEO`` does the same 200 times."""
    found = availability()
    if not found.ok:
        pytest.skip(found.reason)
    command = [sys.executable, "-m", "tests.agent.killed_runs", str(tmp_path), str(KILLED), "11", str(BOARD)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["killed"] == KILLED
    assert told["resumed"] == told["equal"] == KILLED - told.get("killed before its first line", 0), done.stderr
    for wrong in ("damaged", "not resumed", "other", "model asked again", "recorded call made again", "cells other"):
        assert not told.get(wrong, 0), (wrong, told)
