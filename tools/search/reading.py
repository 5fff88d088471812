"""Files of a folder as text: what of them goes into the index, and what cannot."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from keyeloop.runtime.errors import OperatorError
from keyeloop.tools.confined.errors import Unusable
from keyeloop.tools.pages.reading import Kind, PageReader, can_read

PLAIN = frozenset({".txt", ".md"})
FORMATTED: dict[str, Kind] = {".html": "html", ".htm": "html", ".pdf": "pdf"}
"""Read in a child process without rights; these need the extra ``pages``."""
MAX_PLAIN_BYTES = 4_000_000
"""Of a longer text only the beginning is indexed."""
MAX_FORMATTED_BYTES = 100_000_000
MAX_CHARS = 4_000_000
_TITLE_CHARS = 120


def readable_suffixes() -> frozenset[str]:
    """Endings of the files that can be indexed with what is installed."""
    return PLAIN | (FORMATTED.keys() if can_read() else frozenset())


@dataclass(frozen=True)
class FileText:
    """Title and text of a file; ``problem`` is a clause about one of which nothing but its name could be read."""

    title: str
    text: str
    problem: str = ""


class FileReader:
    """Reads files one after the other; the child for HTML and PDF is started at the first of them."""

    def __init__(self) -> None:
        self._pages: PageReader | None = None

    def read(self, path: Path) -> FileText:
        """Title and text of a file. Never raises for what is in it."""
        suffix = path.suffix.lower()
        try:
            if suffix in FORMATTED:
                return self._formatted(path, FORMATTED[suffix])
            with path.open("rb") as file:
                text = file.read(MAX_PLAIN_BYTES).decode("utf-8", "replace")
        except OSError as error:
            return FileText(name_title(path.name), "", f"cannot be opened ({error.strerror})")
        return FileText(*titled(path.name, text))

    def close(self) -> None:
        """End the child; idempotent."""
        if self._pages is not None:
            self._pages.close()

    def __enter__(self) -> FileReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _formatted(self, path: Path, kind: Kind) -> FileText:
        body = path.read_bytes() if path.stat().st_size <= MAX_FORMATTED_BYTES else b""
        if not body:
            return FileText(name_title(path.name), "", f"is empty, or larger than {MAX_FORMATTED_BYTES / 1e6:g} MB")
        self._pages = self._pages or PageReader()
        try:
            document = self._pages.read(kind, body, max_chars=MAX_CHARS)
        except (Unusable, OperatorError) as error:
            return FileText(name_title(path.name), "", str(error))
        problem = "" if document.text.strip() else "has no text"
        return FileText(document.title or name_title(path.name), document.text, problem)


def titled(path: str, text: str) -> tuple[str, str]:
    """Title and text: a first heading or short line, else the file's name."""
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    title = first.lstrip("#").strip() if first.startswith("#") or len(first) <= _TITLE_CHARS else ""
    return title or name_title(path), text


def name_title(path: str) -> str:
    """What a file's name says."""
    return Path(path).stem.replace("_", " ").replace("-", " ")


def count_unreadable(folder: Path) -> int:
    """How many HTML and PDF files below ``folder`` are left out because the extra ``pages`` is not installed."""
    if can_read():
        return 0
    with suppress(OSError):
        return sum(path.suffix.lower() in FORMATTED for path in folder.rglob("*"))
    return 0
