"""The examples about tools, run as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ("own_tools", "approval", "mcp_tools", "mcp_client", "read_and_listen")
BOARD = ROOT / "tools" / "demo_video" / "board.mp4"
RUNS: list[tuple[str, list[str], str, list[str]]] = [
    ("own_tools", [], "", ["Filed and painted."]),
    ("approval", [], "not there\n", ["file_number {'number': 383, 'shelf': 'low'}?", "Done what I may."]),
    ("mcp_tools", [], "", ["convert_time: Convert time between timezones", "Six in the morning."]),
    ("mcp_client", [str(BOARD), "8"], "", ["tools: clip_video zoom python", "video-1: f1 at 8.0 s", "saved frame.jpg"]),
]


@pytest.mark.parametrize(("name", "arguments", "typed", "heard"), RUNS)
def test_an_example_runs_as_it_says(
    name: str, arguments: list[str], typed: str, heard: list[str], tmp_path: Path
) -> None:
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), *arguments]
    place = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        command, input=typed, capture_output=True, text=True, cwd=tmp_path, env=place, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    for words in heard:
        assert words in done.stdout
    journals = [path.read_text(encoding="utf-8") for path in tmp_path.glob("runs/*/journal.jsonl")]
    if name == "own_tools":
        assert "there is no 'slott'; known: shelf, slot" in journals[0]
    if name == "approval":
        assert "was not allowed: not there" in journals[0] and "not allowed (rule 'empty_*')" in journals[0]
    if name == "mcp_client":
        assert (tmp_path / "frame.jpg").stat().st_size > 1000


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_short(name: str) -> None:
    assert len((ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= 60


def test_an_example_of_an_extra_says_what_to_install(tmp_path: Path) -> None:
    """What it does with the extra is in tests/tools/test_perception_engines.py."""
    program = "import runpy, sys; sys.modules['rapidocr'] = None; runpy.run_path(sys.argv[1], run_name='__main__')"
    command = [sys.executable, "-c", program, str(ROOT / "examples" / "read_and_listen.py"), str(BOARD)]
    place = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=place, timeout=120, check=False)
    assert done.returncode == 2 and 'pip install "keyeloop[ocr]"' in done.stderr
