"""Which pictures a record speaks of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from keyeloop.runtime.content import images_of
from keyeloop.runtime.events import Event, Noticed, QuestionAsked, ReplyReceived, RunStart, ToolReturned
from keyeloop.runtime.views import handle_of
from keyeloop.runtime.wire import MessageWire, PartWire, parts_from_wire


def pictures_of(events: Iterable[Event]) -> dict[str, int | None]:
    """Every picture that the events need, by sha256, with its bytes where they are recorded; in order of appearance.

    A picture that is a source of its own is needed twice: as the model saw it, and whole.
    """
    found: dict[str, int | None] = {}
    for event in events:
        for part in _parts(event):
            for image in images_of(next(iter(parts_from_wire([part])))):
                found[image.media.sha256] = image.media.size_bytes
                if image.view is not None and handle_of(image.view.source):
                    found.setdefault(image.view.source_sha256, None)
    return found


def _parts(event: Event) -> Iterator[PartWire]:
    messages: tuple[MessageWire, ...] = ()
    match event:
        case RunStart() | QuestionAsked():
            messages = event.messages
        case ReplyReceived():
            messages = (event.message,)
        case Noticed() if event.message is not None:
            messages = (event.message,)
        case ToolReturned():
            yield from event.parts
    for message in messages:
        yield from message.parts
