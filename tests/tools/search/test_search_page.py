"""The page about searching and the examples are run, against a site on loopback."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.pages_site import Reply, Site, serving

ROOT = Path(__file__).resolve().parents[3]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as site:
        url = site.page("/lighthouse", "<title>Cap Gris</title><p>" + "The lighthouse has 212 steps. " * 20)
        result = {"title": "Cap Gris", "url": url, "content": "A lighthouse", "publishedDate": "2024-03-02T00:00:00"}
        site.routes["/search"] = Reply.of({"results": [result]})
        yield site


def test_the_page_runs_as_written(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KEYELOOP_SEARXNG_URL", site.url)
    monkeypatch.setenv("SITE", site.host)
    (tmp_path / "manuals").mkdir()
    text = (ROOT / "docs" / "search.md").read_text(encoding="utf-8")
    names: dict[str, object] = {"__name__": "page"}
    blocks = list(BLOCK.finditer(text))
    assert len(blocks) >= 2
    for block in blocks:
        line = text[: block.start()].count("\n") + 1
        exec(compile("\n" * line + block[1], "search.md", "exec", dont_inherit=True), names)
    assert f"1 Cap Gris {site.url}/lighthouse 2024-03-02 searxng A lighthouse" in capsys.readouterr().out


def example(name: str, folder: Path, *arguments: str, **environment: str) -> str:
    path = ROOT / "examples" / name
    assert len(path.read_text().splitlines()) <= 60 and ast.get_docstring(ast.parse(path.read_text()))
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = subprocess.run(
        [sys.executable, str(path), *arguments],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(ROOT / "src"), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_example_of_the_web_runs(site: Site, tmp_path: Path) -> None:
    said = example(
        "search.py", tmp_path, "cap gris", "searxng", site.host, KEYELOOP_SEARXNG_URL=site.url
    )  # fmt: skip
    assert f"1. Cap Gris ({site.url}/lighthouse, 2024-03-02, by searxng)" in said and "Read it." in said
    assert [asked.path for asked in site.asked] == ["/search", "/search", "/lighthouse"]


def test_the_example_of_documents_runs(tmp_path: Path) -> None:
    (tmp_path / "shelf").mkdir()
    (tmp_path / "shelf" / "lamp.md").write_text("# Lamp\n\nIt has 212 steps.\n")
    said = example("search_documents.py", tmp_path, "shelf", "how many steps")
    assert "1 documents, 1 read" in said and "Lamp (lamp.md): # Lamp It has 212 steps." in said and "Found it." in said
