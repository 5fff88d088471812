"""The views of one run by handle: minted in order, so that a replay names them alike."""

from __future__ import annotations

from collections.abc import Iterator

from keyeloop.runtime.errors import ToolError
from keyeloop.runtime.evidence import Region, View

PLOT, FETCHED = "plot-", "picture-"
"""How the names of sources begin that code drew, and of those that came from a page."""


def handle_of(source: str) -> str | None:
    """The handle of a picture that is a source of its own: ``p3`` of ``plot-3`` and of ``picture-3``; else None."""
    kind, line, number = source.rpartition("-")
    return f"p{number}" if kind + line in (PLOT, FETCHED) and number.isdecimal() else None


class ViewBook:
    """Mints handles (``f1`` for a frame, ``z1`` for a crop, ``p1`` for another picture) and finds views again."""

    def __init__(self) -> None:
        self._views: dict[str, View] = {}
        self._counts = {"f": 0, "z": 0, "p": 0}

    def frame(self, source: str, source_sha256: str, time_s: float | None, region: Region) -> View:
        """A new view of a whole frame."""
        return self._add(View(self._mint("f"), source, source_sha256, time_s, region))

    def crop(self, parent: View, region: Region) -> View:
        """A new view of ``region`` (source pixels) at the parent's moment."""
        return self._add(
            View(self._mint("z"), parent.source, parent.source_sha256, parent.time_s, region, parent.handle)
        )

    def own(self, kind: str, sha256: str, region: Region) -> View:
        """A new view of a picture that no input shows, stored under ``sha256``; it is a source of its own.

        ``kind`` is :data:`PLOT` or :data:`FETCHED`.
        """
        handle = self._mint("p")
        return self._add(View(handle, f"{kind}{handle[1:]}", sha256, None, region))

    def find(self, handle: str) -> View:
        """The view called ``handle``; ToolError names the known ones."""
        try:
            return self._views[handle]
        except KeyError:
            known = ", ".join(self._views) or "none yet: look with clip_video first"
            raise ToolError(f"there is no view {handle!r}; known views: {known}") from None

    def __contains__(self, handle: object) -> bool:
        return handle in self._views

    def __iter__(self) -> Iterator[View]:
        return iter(self._views.values())

    def restore(self, view: View) -> None:
        """Put back a view read from a journal, keeping its handle."""
        kind, number = view.handle[0], int(view.handle[1:])
        self._counts[kind] = max(self._counts.get(kind, 0), number)
        self._views[view.handle] = view

    def _mint(self, kind: str) -> str:
        self._counts[kind] += 1
        return f"{kind}{self._counts[kind]}"

    def _add(self, view: View) -> View:
        self._views[view.handle] = view
        return view
