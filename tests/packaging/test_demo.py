"""``make demo``: the embedded model answers about the bundled video rightly, cites the right second, and is quick."""

from __future__ import annotations

import json
import re
import resource
import shlex
import subprocess
from pathlib import Path

import pytest

from keyeloop.runtime.moments import parse_time
from keyeloop.runtime.trajectory import Trajectory

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
MAX_CPU_S = 30.0


def demo_command() -> list[str]:
    """What ``make demo`` runs once everything is installed."""
    lines = subprocess.run(["make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (line,) = [line for line in lines.splitlines() if " run " in line]
    return shlex.split(line)


def test_the_demo_answers_rightly_with_a_citation(tmp_path: Path) -> None:
    command = demo_command()
    question = next(word for word in command if word.endswith("?"))
    video = ROOT / command[command.index("--video") + 1]
    asked = re.search(r"(?:\d+:)?\d+:\d\d|\d+ s", question)
    moment_s = parse_time(asked[0]) if asked else None
    assert moment_s is not None
    rows = json.loads(video.with_suffix(".json").read_text())
    (row,) = [row for row in rows if row["family"] == "read" and row["start_s"] <= moment_s < row["end_s"]]

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(
        [*command, "--json", "--runs", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout.splitlines()[-1])
    assert said["answer"] == row["answer"]
    (citation,) = said["citations"]
    assert citation["seen"] and row["start_s"] <= citation["time_s"] < row["end_s"]
    box = citation["region"]
    assert 0 <= box["x0"] < box["x1"] <= 1280 and 0 <= box["y0"] < box["y1"] <= 720
    assert Trajectory.read(Path(said["run"])).status == "answered"
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < MAX_CPU_S
