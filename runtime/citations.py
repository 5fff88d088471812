"""Citations in an answer: read from its text, resolved to source, moment and box, checked against what was looked at.

A citation stands in square brackets: ``[f1]``, ``[z1]``, ``[p1]``, ``[f1 310,200,640,460]`` (a box in thousandths of
that view), ``[video-1 83.0s]``, ``[video-1 83.0s 310,200,640,460]``, ``[image-1 310,200,640,460]`` and, where a run has
one source, ``[1:23.5]`` or ``[83.0s]``. Several share a pair of brackets with a semicolon or a comma:
``[f1; f3 10,10,90,90]``, ``[f1, f2]``. ``[video-1 at 83.0s]``, ``[video-1, 83.0s]``, ``[F1]`` and ``[f1-f4]``, every
view from one to the other, are read too, as models write them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from keyeloop.runtime.errors import ToolError
from keyeloop.runtime.evidence import Box, Citation, Region, Source, View
from keyeloop.runtime.moments import format_time as format_time
from keyeloop.runtime.moments import parse_time

SEEN_WITHIN_S = 0.5
"""A moment counts as looked at when a view of its source is at most this far from it."""

MOST_OF_A_RANGE = 64
"""A range of more views is no citation."""

_NUMBER = r"\d+(?:\.\d+)?"
_TIME = rf"(?:\d+:)?\d+:\d{{2}}(?:\.\d+)?|{_NUMBER}\s?s"
_BOX = rf"{_NUMBER}(?:\s*,\s*{_NUMBER}){{3}}"
_ONE = re.compile(
    rf"(?:(?P<handle>[fzpFZP]\d+)(?:\s*(?:-|–|\.\.|to)\s*(?P<last>[fzpFZP]?\d+))?(?:(?:,|\s+at)?\s+(?:{_TIME}))?|(?P<still>(?:image|video)-\d+)"
    rf"|(?:(?P<source>[A-Za-z][\w.-]*)(?:,|\s+at)?\s+)?(?P<time>{_TIME})"
    rf"|(?P<named>[A-Za-z][\w.-]*)(?=\s+{_NUMBER}\s*,))"
    rf"(?:\s+(?:box\s+)?(?P<box>{_BOX}))?"
)
_BETWEEN = re.compile(r";|,(?=\s*[A-Za-z])")
_BRACKETS = re.compile(r"\[([^\[\]\n]{1,200})\]")


@dataclass(frozen=True)
class RawCitation:
    """A citation as it was written, not yet looked up."""

    text: str
    """With its brackets; of a range, one view's own."""
    start: int
    """Where the brackets open in the answer; ``end`` is behind the closing one."""
    end: int
    handle: str | None = None
    source: str | None = None
    time_s: float | None = None
    box: Box | None = None
    """``x0, y0, x1, y1`` as written, in thousandths; not checked."""


def parse_citations(text: str) -> list[RawCitation]:
    """Every citation in ``text``, in order; other brackets are left alone."""
    return [citation for brackets in _BRACKETS.finditer(text) for citation in _read(brackets)]


def strip_citations(text: str) -> str:
    """The answer without its citations and the space before each."""
    kept, end = [], 0
    for brackets in _BRACKETS.finditer(text):
        if _read(brackets):
            kept.append(text[end : brackets.start()].rstrip(" \t"))
            end = brackets.end()
    return "".join([*kept, text[end:]]).strip()


def resolve(text: str, views: Iterable[View], sources: Iterable[Source]) -> tuple[Citation, ...]:
    """Citations of an answer as addresses: source, seconds, box in source pixels, and whether the run looked there.

    A handle, a source or a box that does not exist gives a citation that is marked unseen, never an error.
    """
    book, declared = {view.handle: view for view in views}, {source.name: source for source in sources}
    return tuple(_resolve(raw, book, declared) for raw in parse_citations(text))


def _read(brackets: re.Match[str]) -> list[RawCitation]:
    found = []
    for piece in _BETWEEN.split(brackets[1]):
        match = _ONE.fullmatch(piece.strip())
        if match is None:
            return []
        box = tuple(float(side) for side in match["box"].split(",")) if match["box"] else None
        handles = _handles(match["handle"], match["last"])
        if not handles:
            return []
        for handle in handles:
            found.append(
                RawCitation(
                    text=f"[{piece.strip()}]" if match["last"] is None else f"[{handle}]",
                    start=brackets.start(),
                    end=brackets.end(),
                    handle=handle,
                    source=match["still"] or match["source"] or match["named"],
                    time_s=parse_time(match["time"]) if match["time"] else None,
                    box=box,  # type: ignore[arg-type]
                )
            )
    return found


def _handles(first: str | None, last: str | None) -> list[str | None]:
    """The handle that is cited, or all of a range; none of a range that makes no sense."""
    if first is None or last is None:
        return [first and first.lower()]
    kind, begin, end = first[0].lower(), int(first[1:]), int(last.lstrip("fzpFZP"))
    same = last[0].isdigit() or last[0].lower() == kind
    if not same or not begin <= end < begin + MOST_OF_A_RANGE:
        return []
    return [f"{kind}{number}" for number in range(begin, end + 1)]


def _resolve(raw: RawCitation, book: dict[str, View], declared: dict[str, Source]) -> Citation:
    if raw.handle is not None:
        return _resolve_handle(raw, book)
    only = next(iter(declared.values())) if len(declared) == 1 else None
    source = declared.get(raw.source) if raw.source is not None else only
    if source is None:
        return Citation(raw.source or "", "", raw.time_s, None, None, False, raw.text)
    frame = View("", source.name, source.sha256, raw.time_s, source.whole)
    region, sound = _region(frame, raw.box)
    shown = [view for view in book.values() if view.source == source.name and _near(view.time_s, raw.time_s)]
    seen = sound and any(region is None or view.region.iou(region) > 0 for view in shown)
    return Citation(source.name, source.sha256, raw.time_s, region, None, seen, raw.text)


def _resolve_handle(raw: RawCitation, book: dict[str, View]) -> Citation:
    view = book.get(raw.handle or "")
    if view is None:
        return Citation("", "", None, None, raw.handle, False, raw.text)
    region, sound = _region(view, raw.box)
    if region is None and view.parent is not None:
        region = view.region
    return Citation(view.source, view.source_sha256, view.time_s, region, view.handle, sound, raw.text)


def _region(view: View, box: Box | None) -> tuple[Region | None, bool]:
    """The box in source pixels, and whether it is one at all."""
    if box is None:
        return None, True
    try:
        return view.region_of(box), True
    except ToolError:
        return None, False


def _near(shown_s: float | None, cited_s: float | None) -> bool:
    return cited_s is None or (shown_s is not None and abs(shown_s - cited_s) <= SEEN_WITHIN_S)
