"""Search over documents: what is found, how it is refreshed, what the model reads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from keyeloop.runtime.content import Text
from keyeloop.runtime.errors import InputError, ToolError
from keyeloop.runtime.media import MediaStore
from keyeloop.runtime.views import ViewBook
from keyeloop.tools.base import ToolContext
from keyeloop.tools.search.index import DocumentIndex, search_words
from keyeloop.tools.search.tool import web_search

PAGES = {
    "australia.md": "# Australia\n\nA country in Oceania. Its capital is Canberra, its largest city Sydney.\n",
    "sub/plants.txt": "Photosynthesis\n\nPlants turn light into sugar. Chloroplasts do the work.\n",
    "running_shoes.txt": ("For years people have been running. " * 9) + "\nShoes wear out after 700 kilometres.\n",
    "what.md": "# What is the\n\nwhat what what the the is of of\n",
    "notes.csv": "capital,canberra\n",
    ".hidden/secret.md": "capital canberra\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in PAGES.items():
        path = tmp_path / "pages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "pages"


@pytest.fixture
def index(folder: Path, tmp_path: Path) -> DocumentIndex:
    return DocumentIndex(folder, tmp_path / "cache")


@pytest.mark.parametrize(
    "query,path",
    [
        ("What is the capital of Australia?", "australia.md"),
        ("how do plants use light", "sub/plants.txt"),
        ("chloroplast", "sub/plants.txt"),  # by its stem
        ('"shoes" AND (run*', "running_shoes.txt"),  # punctuation of the query language means nothing
    ],
)
def test_the_right_page_comes_first(index: DocumentIndex, query: str, path: str) -> None:
    assert index.search(query)[0].path == path


def test_hits_carry_title_and_the_stretch_that_matches(index: DocumentIndex) -> None:
    hit = index.search("capital Canberra")[0]
    assert hit.title == "Australia" and "capital is Canberra" in hit.snippet and "\n" not in hit.snippet
    far = index.search("kilometres")[0]
    assert far.title == "running shoes" and "700 kilometres" in far.snippet and len(far.snippet) < 300


def test_stop_words_do_not_drown_the_question(index: DocumentIndex) -> None:
    assert [hit.path for hit in index.search("what is the capital of it")] == ["australia.md"]
    assert search_words("What is it?") == ["what", "is", "it"]  # nothing else is left
    assert index.search("?!") == []


def test_the_index_follows_the_folder(index: DocumentIndex, folder: Path) -> None:
    assert index.search("canberra")
    (folder / "australia.md").write_text("# Australia\n\nA country with a capital called Kangaroo.\n")
    (folder / "new.md").write_text("# Zebra\n\nstripes\n")
    (folder / "sub/plants.txt").unlink()
    assert [hit.path for hit in index.search("canberra")] == []
    assert [hit.path for hit in index.search("kangaroo")] == ["australia.md"]
    assert [hit.path for hit in index.search("zebra")] == ["new.md"]
    assert index.search("chloroplast") == []


def test_an_unchanged_page_is_not_read_again(index: DocumentIndex, folder: Path) -> None:
    index.search("canberra")
    page = folder / "australia.md"
    status = page.stat()
    page.write_text("x" * status.st_size)
    os.utime(page, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert [hit.path for hit in index.search("canberra")] == ["australia.md"]  # answered from the kept index


def test_a_damaged_or_missing_index_is_made_anew(index: DocumentIndex, tmp_path: Path, folder: Path) -> None:
    index.search("canberra")
    (kept,) = (tmp_path / "cache/documents").glob("*.sqlite")
    kept.write_bytes(b"rubbish" * 1000)
    assert index.search("canberra")
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert DocumentIndex(folder, blocked).search("canberra")  # nowhere to keep it


def test_links_do_not_lead_out_of_the_folder(index: DocumentIndex, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "private.md").write_text("# Private\n\nxylophone\n")
    (folder / "link.md").symlink_to(tmp_path / "private.md")
    (folder / "up").symlink_to(tmp_path)
    assert index.search("xylophone") == []


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder of documents"):
        DocumentIndex(tmp_path / "none")


class NoCost:
    """Search shows no pictures."""

    image = frame = clip = None


async def asked(documents: Path | None, query: str, tmp_path: Path) -> str:
    context = ToolContext({}, MediaStore(tmp_path), ViewBook(), NoCost(), 0, documents=documents)  # type: ignore[arg-type]
    (part,) = await web_search.call({"query": query}, context)
    assert isinstance(part, Text)
    return part.text


async def test_what_the_model_reads(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    text = await asked(folder, "capital of Australia", tmp_path)
    assert text.startswith("1. Australia (australia.md)\n") and "Canberra" in text
    assert await asked(folder, "quux", tmp_path) == "no document matches 'quux'; try other words"
    with pytest.raises(ToolError, match="given no folder"):
        await asked(None, "x", tmp_path)
    with pytest.raises(ToolError, match="no such folder"):
        await asked(tmp_path / "gone", "x", tmp_path)
