"""``keyeloop index``: make a folder of documents ready for searching, and try a question on it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer


def index(
    folder: Annotated[Path, typer.Argument(help="The folder of documents.", show_default=False)],
    query: Annotated[
        str | None, typer.Option("--query", "-q", help="Search for this when it is ready, as web_search would.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=50, help="Results of --query.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Build the embedded index over text, Markdown, HTML and PDF; only what is new or changed is read.

    A run with --documents FOLDER does the same by itself; for many PDF files do it here, once, before. Exits with 1
    where no document could be indexed.
    """
    from rich.console import Console
    from rich.progress import Progress

    from keyeloop.agent.wording import clean
    from keyeloop.runtime.errors import InputError
    from keyeloop.tools.pages.reading import MISSING
    from keyeloop.tools.search.index import DocumentIndex
    from keyeloop.tools.search.reading import count_unreadable
    from keyeloop.tools.search.wording import hits_text

    documents = DocumentIndex(folder)
    left_out = count_unreadable(folder)
    if not documents.has_documents():
        cure = MISSING if left_out else "it needs .txt, .md, .html or .pdf files"
        raise InputError(f"nothing to index in {folder}: {cure}")
    began_s = time.monotonic()
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading", total=None)
        done = documents.refresh(lambda number, total, _: bar.update(task, completed=number, total=total))
    seconds = time.monotonic() - began_s
    hits = [] if query is None else documents.search(query, limit)
    if as_json:
        told = {
            "folder": str(documents.folder),
            "documents": done.documents,
            "read": done.read,
            "removed": done.removed,
            "problems": [{"path": path, "problem": problem} for path, problem in done.problems],
            "left_out": left_out,
            "seconds": round(seconds, 3),
            "index": None if done.file is None else str(done.file),
            "bytes": None if done.file is None else done.file.stat().st_size,
            "hits": [vars(hit) for hit in hits],
        }
        print(json.dumps(told, ensure_ascii=False))
        return 0 if done.documents else 1
    size = "" if done.file is None else f", {done.file.stat().st_size / 1e6:.1f} MB"
    print(clean(f"{documents.folder}: {done.documents} documents{size}"))
    print(f"{done.read} read, {done.removed} removed in {seconds:.1f} s")
    for path, problem in done.problems:
        print(clean(f"  {path} {problem}: only its name is in the index"))
    if left_out:
        print(f"{left_out} HTML and PDF files left out: {MISSING}")
    if done.file is None:
        print("the index could not be kept: every run will read all of it again")
    if query is not None:
        print()
        print(clean(hits_text(query, hits)))
    return 0
