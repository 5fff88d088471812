"""What a person types: the example, a demo video that is not replaced, tools that are offered when they are named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from keyeloop.agent.builtin import builtin_tools
from keyeloop.agent.cli import main

ROOT = Path(__file__).resolve().parents[2]


def test_the_example_runs_as_it_says(tmp_path: Path) -> None:
    script = ROOT / "examples" / "video_tools.py"
    assert len(script.read_text().splitlines()) <= 60
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        timeout=120,
        check=False,
    )
    assert done.stdout.splitlines() == [
        "From 383 to 821.",
        "f9: video-1 at 2.000 s",
        "z1: video-1 at 20.000 s",
        "72 frames, 19.000 to 22.000 s, copied",
    ], done.stderr


def test_a_demo_video_replaces_nothing_unless_forced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "board.json").write_text("mine")
    for taken in ("board.mp4", "board.json"):
        (tmp_path / taken).write_text("mine")
        with pytest.raises(SystemExit) as leave:
            main(["demo-video", str(tmp_path / "board.mp4")])
        assert leave.value.code == 2
        assert "would be replaced: name another file, or add --force" in capsys.readouterr().err
        assert (tmp_path / taken).read_text() == "mine"


def test_a_model_gets_no_more_tools_than_it_was_trained_with() -> None:
    assert [tool.spec.name for tool in builtin_tools(["video"])] == ["clip_video", "zoom", "python"]
