"""The embedded index over HTML and PDF: read by the child, named when unreadable, kept batch by batch."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyeloop.tools.pages import reading
from keyeloop.tools.search import index as index_module
from keyeloop.tools.search.index import DocumentIndex
from keyeloop.tools.search.reading import count_unreadable
from tests.tools.pdf_file import pdf_of

PAGE = "<html><head><title>The lamp</title></head><body><nav>Menu of the shop</nav><p>{}</p></body></html>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "shelf"
    folder.mkdir()
    (folder / "lamp.html").write_text(PAGE.format("A Fresnel lens bends light to the horizon. " * 9))
    (folder / "tower.pdf").write_bytes(pdf_of(["The tower has 212 steps", "and one keeper"], "Steps of the tower"))
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 and nothing more")
    (folder / "notes.md").write_text("# Notes\n\nThe keeper was Ada.\n")
    return folder


def test_html_and_pdf_are_found_by_title_and_text(folder: Path, tmp_path: Path) -> None:
    index = DocumentIndex(folder, tmp_path / "cache")
    told: list[tuple[int, int, str]] = []
    done = index.refresh(lambda *one: told.append(one))
    assert (done.documents, done.read, done.removed) == (4, 4, 0)
    assert told[0] == (0, 4, "broken.pdf") and done.file is not None and done.file.is_file()
    assert [path for path, _ in done.problems] == ["broken.pdf"] and "is a PDF that is damaged" in done.problems[0][1]
    (first, *_) = index.search("how many steps has the tower")
    assert (first.path, first.title) == ("tower.pdf", "Steps of the tower") and "212 steps" in first.snippet
    assert index.search("fresnel")[0].title == "The lamp" and index.search("broken")[0].path == "broken.pdf"
    assert index.search("shop") == []  # a menu is no text of the page
    (folder / "tower.pdf").unlink()
    assert index.refresh().removed == 1 and index.refresh().read == 0
    assert [hit.path for hit in index.search("keeper")] == ["notes.md"]


def test_what_breaks_a_refresh_off_keeps_the_batches_before(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "FILES_AT_ONCE", 2)
    index = DocumentIndex(folder, tmp_path / "cache")

    def interrupt(number: int, total: int, path: str) -> None:
        if path == "notes.md":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index.refresh(interrupt)
    assert index.refresh().read == 2
    assert index.search("ada")[0].path == "notes.md"


def test_without_the_extra_they_are_left_out_and_counted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "NEEDED", ("a_package_that_is_not_there",))
    index = DocumentIndex(folder, tmp_path / "cache")
    assert index.refresh().documents == 1 and count_unreadable(folder) == 3
    monkeypatch.undo()
    assert index.refresh().documents == 4 and count_unreadable(folder) == 0
