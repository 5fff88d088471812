"""``--require``: in CI a test that is skipped for want of an installed part fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SKIPPING = """
import pytest

@pytest.mark.sandbox
def test_needs_a_part():
    pytest.skip("no bubblewrap here")

@pytest.mark.sandbox
@pytest.mark.skipif(True, reason="no user namespaces here")
def test_never_begins():
    raise AssertionError

@pytest.mark.gpu
def test_needs_another_part():
    pytest.skip("no GPU here")

@pytest.mark.sandbox
def test_passes():
    pass
"""


def outcome(folder: Path, *options: str) -> str:
    (folder / "test_parts.py").write_text(SKIPPING)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "-c", "pyproject.toml"]
    run = subprocess.run(
        [*command, "--rootdir", str(folder), *options, str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return run.stdout


def test_skips_are_allowed_where_nothing_is_required(tmp_path: Path) -> None:
    assert "1 passed, 3 skipped" in outcome(tmp_path)


def test_a_required_part_may_not_be_missing(tmp_path: Path) -> None:
    said = outcome(tmp_path, "--require=sandbox")
    assert "1 failed, 1 passed, 1 skipped, 1 error" in said  # a skip before the test begins is an error
    assert "skipped, but sandbox is required here" in said and "no bubblewrap here" in said
