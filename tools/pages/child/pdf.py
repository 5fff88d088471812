"""PDF to text, page after page, as far as time and room allow."""

from __future__ import annotations

import io
import time
from typing import Any

from pypdf import PdfReader
from pypdf.errors import FileNotDecryptedError, PyPdfError

from keyeloop.tools.confined.errors import Unusable

MAX_PAGES = 3000


def read_pdf(body: bytes, max_chars: int, cpu_s: float) -> dict[str, Any]:
    """``text`` with a line ``[page N]`` before each page, ``title``, ``pages`` and ``left_out`` (pages not read).

    Stops with what it has when ``max_chars`` or three quarters of ``cpu_s`` are used. Raises Unusable.
    """
    until_s = time.process_time() + 0.75 * cpu_s
    try:
        reader = PdfReader(io.BytesIO(body), strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unusable("is a PDF that only opens with a password")
        total = len(reader.pages)
        title = _title(reader)
    except (FileNotDecryptedError, ImportError, NotImplementedError):
        raise Unusable("is a PDF that is encrypted in a way that cannot be read") from None
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise Unusable(f"is a PDF that is damaged ({type(error).__name__})") from None
    texts: list[str] = []
    used = 0
    for number in range(min(total, MAX_PAGES)):
        if used >= max_chars or time.process_time() > until_s:
            break
        try:
            text = reader.pages[number].extract_text().strip()
        except MemoryError:
            raise
        except Exception as error:  # one page that is broken does not take the others with it
            text = f"(this page cannot be read: {type(error).__name__})"
        texts.append(f"[page {number + 1}]\n{text or '(no text: perhaps a scan)'}")
        used += len(texts[-1])
    return {"text": "\n\n".join(texts), "title": title, "pages": total, "left_out": total - len(texts)}


def _title(reader: PdfReader) -> str:
    try:
        return " ".join(str((reader.metadata and reader.metadata.title) or "").split())[:200]
    except Exception:  # a title in an encoding of its own is no reason to read nothing
        return ""
