"""Where a run looked: every picture that it was shown, with its moment, its box, and how closely it showed that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from keyeloop.runtime.content import MediaRef
from keyeloop.runtime.events import Event, QuestionAsked, RunStart, ToolReturned
from keyeloop.runtime.evidence import Region, View
from keyeloop.runtime.wire import PartWire


@dataclass(frozen=True)
class Look:
    """One picture of a source that the model was shown."""

    view: View
    media: MediaRef
    """The picture as the model saw it."""
    turn: int
    """The turn whose call showed it; 0 for the first message."""
    seq: int
    """The event that holds it."""
    shown_s: float
    """When it was recorded, in seconds since the epoch."""
    call_id: str | None = None
    """The call that showed it; None for the first message."""

    @property
    def source(self) -> str:
        return self.view.source

    @property
    def time_s(self) -> float | None:
        """Its moment in the source, in presentation seconds; None for an image."""
        return self.view.time_s

    @property
    def region(self) -> Region:
        """What of the source is visible, in source pixels."""
        return self.view.region

    @property
    def closeness(self) -> float:
        """Pixels of the picture for one of the source, along a side: above 1 it is enlarged."""
        width = self.view.region.width
        return self.media.width / width if width else 0.0


@dataclass(frozen=True)
class Span:
    """A stretch of a source that was looked at, in presentation seconds; one frame has no length."""

    times_s: tuple[float, ...]
    """The moments that were shown, ascending, each once."""
    views: int
    """Crops included."""

    @property
    def start_s(self) -> float:
        """The first moment."""
        return self.times_s[0]

    @property
    def end_s(self) -> float:
        """The last moment."""
        return self.times_s[-1]

    @property
    def gap_s(self) -> float:
        """The longest time in it of which nothing was shown."""
        return max((later - earlier for earlier, later in pairwise(self.times_s)), default=0.0)


def looks_of(events: Iterable[Event]) -> Iterator[Look]:
    """Every picture with an address among ``events``, in the order in which they were shown."""
    for event in events:
        if isinstance(event, RunStart | QuestionAsked):
            for message in event.messages:
                for view, media in _shown(message.parts):
                    yield Look(view, media, 0, event.seq, event.time_s)
        elif isinstance(event, ToolReturned):
            for view, media in _shown(event.parts):
                yield Look(view, media, event.turn, event.seq, event.time_s, event.call_id)


def view_groups(events: Sequence[Event]) -> Iterator[tuple[View, ...]]:
    """Views that appeared together: in one opening message, or in one tool result."""
    for event in events:
        if isinstance(event, RunStart):
            for message in event.messages:
                yield _views(message.parts)
        elif isinstance(event, ToolReturned):
            yield event.views or _views(event.parts)


def spans_of(groups: Iterable[Sequence[View]]) -> dict[str, tuple[Span, ...]]:
    """For each source, spans in ascending time, overlapping ones joined; none for a source without times."""
    spans: dict[str, list[Span]] = {}
    for group in groups:
        for name in dict.fromkeys(view.source for view in group):
            times = [view.time_s for view in group if view.source == name and view.time_s is not None]
            found = spans.setdefault(name, [])
            if times:
                found.append(Span(tuple(sorted(set(times))), len(times)))
    return {name: _joined(found) for name, found in spans.items()}


def _joined(spans: list[Span]) -> tuple[Span, ...]:
    joined: list[Span] = []
    for span in sorted(spans, key=lambda span: span.times_s):
        if joined and span.start_s <= joined[-1].end_s:
            last = joined[-1]
            joined[-1] = Span(tuple(sorted({*last.times_s, *span.times_s})), last.views + span.views)
        else:
            joined.append(span)
    return tuple(joined)


def _shown(parts: Iterable[PartWire]) -> Iterator[tuple[View, MediaRef]]:
    for part in parts:
        if part.type == "image":
            if part.view is not None:
                yield part.view, part.media
        elif part.type == "video":
            for frame in part.frames:
                if frame.view is not None:
                    yield frame.view, frame.media


def _views(parts: Iterable[PartWire]) -> tuple[View, ...]:
    return tuple(view for view, _ in _shown(parts))
