"""The pages under ``docs/`` that hold Python are run, block by block."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from keyeloop.runtime.config import Config

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    ("page", "at_least"),
    [("using.md", 5), ("quickstart.md", 1), ("tools.md", 6), ("video.md", 2), ("trajectories.md", 1)],
)
def test_the_page_runs_as_written(page: str, at_least: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    shutil.copy(ROOT / "tools" / "demo_video" / "board.mp4", tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    blocks = list(BLOCK.finditer(text))
    assert len(blocks) >= at_least
    for block in blocks:
        line = text[: block.start()].count("\n") + 1
        exec(compile("\n" * line + block[1], page, "exec", dont_inherit=True), names)


def test_every_setting_is_named() -> None:
    settings = (ROOT / "docs" / "using.md").read_text(encoding="utf-8").split("## Settings")[1].split("## ")[0]
    assert set(Config.model_fields) == set(re.findall(r"`([a-z_]+)`", settings)) - {"web_search"}
