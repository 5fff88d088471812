"""Search a folder of one's own: `python search_documents.py FOLDER "what is asked"`; then the same as a tool.

Reads .txt and .md files, and with `pip install "keyeloop[pages]"` also .html and .pdf.
"""

import sys
from pathlib import Path

from keyeloop import Agent
from keyeloop.model_backend.scripted import ScriptedBackend, call
from keyeloop.tools.search.index import DocumentIndex

if __name__ == "__main__":
    folder, question = sys.argv[1:]
    index = DocumentIndex(Path(folder))
    done = index.refresh(lambda number, total, path: print(f"{number + 1}/{total} {path}"))
    print(f"{done.documents} documents, {done.read} read; unreadable: {[path for path, _ in done.problems]}")
    for hit in index.search(question, limit=3):
        print(f"{hit.title} ({hit.path}): {hit.snippet}")

    model = ScriptedBackend([call("web_search", query=question), "Found it."])
    answer = Agent(model).run_sync(question, documents=folder)
    print(answer, answer.run)
