"""Words in a run: in what was thought, said, called and returned."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from keyeloop.agent.wording import clean
from keyeloop.runtime.content import Part, Text
from keyeloop.runtime.errors import JournalError
from keyeloop.runtime.events import ContextEdited, Event, Noticed, ReplyReceived, ToolCalled, ToolReturned
from keyeloop.runtime.journal.layout import chunk_paths
from keyeloop.runtime.trajectory import Trajectory
from keyeloop.runtime.wire import parts_from_wire

MOST_HITS = 100
AROUND_CHARS = 60


@dataclass(frozen=True)
class Hit:
    """One place."""

    turn: int
    where: str
    """``thought``, ``said``, the name of a tool, ..."""
    before: str
    match: str
    after: str


def search(run: Trajectory, words: str) -> tuple[list[Hit], bool]:
    """The first places that hold ``words``, whatever their case, and whether there are more."""
    if not words.strip():
        return [], False
    needle = re.compile(re.escape(words.strip()), re.IGNORECASE)
    hits = (
        _hit(turn, where, text, match)
        for event in run.events
        for turn, where, text in _texts(event)
        for match in needle.finditer(text)
    )
    found = list(islice(hits, MOST_HITS + 1))
    return found[:MOST_HITS], len(found) > MOST_HITS


def says(folder: Path, words: str) -> bool:
    """Whether a run holds ``words`` where :func:`search` looks; most runs that do not are told without being parsed."""
    needle = re.compile(re.escape(json.dumps(words, ensure_ascii=False)[1:-1]), re.IGNORECASE)
    try:
        if any(needle.search(path.read_text("utf-8", "replace")) for path in chunk_paths(folder)):
            return bool(search(Trajectory.salvage(folder), words)[0])
    except (OSError, JournalError):
        pass
    return False


def _texts(event: Event) -> Iterator[tuple[int, str, str]]:
    match event:
        case ReplyReceived():
            yield event.turn, "thought", event.message.reasoning
            yield event.turn, "said", _text(parts_from_wire(event.message.parts))
        case ToolCalled():
            arguments = json.dumps(dict(event.call.arguments), ensure_ascii=False, default=str)
            yield event.turn, f"asked of {event.call.name}", f"{event.call.name} {arguments}"
        case ToolReturned():
            yield event.turn, f"from {event.name}", _text(parts_from_wire(event.parts))
        case Noticed():
            yield event.turn, "notice", event.text
        case ContextEdited():
            yield event.turn, "out of the context", event.stub


def _text(parts: tuple[Part, ...]) -> str:
    return "\n".join(part.text for part in parts if isinstance(part, Text))


def _hit(turn: int, where: str, text: str, match: re.Match[str]) -> Hit:
    begin, end = match.span()
    before = ("…" if begin > AROUND_CHARS else "") + text[max(0, begin - AROUND_CHARS) : begin]
    after = text[end : end + AROUND_CHARS] + ("…" if end + AROUND_CHARS < len(text) else "")
    return Hit(turn, clean(where), clean(before), clean(match[0]), clean(after))
