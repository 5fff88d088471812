"""What ``make demo`` runs: the embedded model answers rightly, cites the right second and box, and is quick."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from keyeloop.agent.cli.demo import bundled_question
from keyeloop.runtime.trajectory import Trajectory

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(300)]

MAX_CPU_S = 30.0


def test_the_demo_answers_rightly_with_a_citation(tmp_path: Path) -> None:
    video, question, expected = bundled_question()
    rows = json.loads(video.with_suffix(".json").read_text())
    (row,) = [row for row in rows if row["question"] == question]
    keyeloop = Path(sys.executable).with_name("keyeloop")
    command = [str(keyeloop), "run", question, "--video", str(video), "--json", "--runs", str(tmp_path)]

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout.splitlines()[-1])
    assert said["answer"] == expected
    (citation,) = said["citations"]
    assert citation["seen"] and row["start_s"] <= citation["time_s"] < row["end_s"]
    box = citation["region"]
    assert 0 <= box["x0"] < box["x1"] <= 1280 and 0 <= box["y0"] < box["y1"] <= 720
    assert Trajectory.read(Path(said["run"])).status == "answered"
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < MAX_CPU_S
