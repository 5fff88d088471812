"""What code shows: the value of its last line, figures, and whatever it hands to ``display``."""

from __future__ import annotations

import io
import sys
from typing import Any

from .pictures import png_of_array

DISPLAYS = 32
"""Things that one execution may show."""
FORMS = (
    ("_repr_html_", "text/html"),
    ("_repr_markdown_", "text/markdown"),
    ("_repr_latex_", "text/latex"),
    ("_repr_svg_", "image/svg+xml"),
    ("_repr_png_", "image/png"),
    ("_repr_jpeg_", "image/jpeg"),
)


class Screen:
    """What the code showed: one bundle of forms per thing, pictures as PNG."""

    def __init__(self, text_bytes: int, total_bytes: int) -> None:
        self._room_chars = 4 * text_bytes
        self._room_bytes = total_bytes
        self._drawn: set[int] = set()
        self.clear()

    def clear(self) -> None:
        self.bundles: list[dict[str, Any]] = []
        self.blobs = bytearray()
        self._drawn.clear()

    def show(self, value: Any) -> None:
        """Add ``value``: its text always, its picture or HTML where it has one."""
        forms: dict[str, Any] = {}
        try:
            forms["text/plain"] = repr(value)
        except Exception as error:
            forms["text/plain"] = f"<{type(value).__name__}, whose repr failed: {error!r}>"
        for method, mime in FORMS:
            if mime == "image/jpeg" and "image/png" in forms:
                continue
            forms[mime] = self._ask(value, method)
        bundle = self._ask(value, "_repr_mimebundle_")
        if isinstance(bundle, tuple) and bundle:
            bundle = bundle[0]
        if isinstance(bundle, dict):
            forms.update(bundle)
        if not forms.get("image/png"):
            forms["image/png"] = self._figure(value) or png_of_array(value)
        self._add(forms)

    def show_figures(self) -> None:
        """Add every open matplotlib figure that was not shown yet, and close them all."""
        pyplot = sys.modules.get("matplotlib.pyplot")
        if pyplot is None:
            return
        for number in pyplot.get_fignums():
            figure = pyplot.figure(number)
            if id(figure) not in self._drawn:
                self._add({"text/plain": repr(figure), "image/png": self._figure(figure)})
        pyplot.close("all")

    def _figure(self, value: Any) -> bytes | None:
        if not (type(value).__module__.startswith("matplotlib.") and hasattr(value, "savefig")):
            return None
        self._drawn.add(id(value))
        target = io.BytesIO()
        value.savefig(target, format="png", dpi=100, bbox_inches="tight")
        return target.getvalue()

    def _ask(self, value: Any, method: str) -> Any:
        if isinstance(value, type) or not hasattr(type(value), method):
            return None
        try:
            return getattr(value, method)()
        except Exception:
            return None

    def _add(self, forms: dict[str, Any]) -> None:
        if len(self.bundles) >= DISPLAYS:
            return
        bundle: dict[str, Any] = {}
        for mime, content in forms.items():
            if isinstance(content, str):
                used = sum(len(text) for each in self.bundles for text in each.values() if isinstance(text, str))
                bundle[str(mime)[:80]] = content[: max(0, self._room_chars - used) // 2]
            elif isinstance(content, (bytes, bytearray)) and len(self.blobs) + len(content) <= self._room_bytes:
                bundle[str(mime)[:80]] = [len(self.blobs), len(content)]
                self.blobs += content
        self.bundles.append(bundle)
