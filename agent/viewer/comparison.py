"""Two runs beside each other: how they began, and the first event in which they part, times and counts apart."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from keyeloop.agent.viewer.opened import OpenedRun
from keyeloop.agent.viewer.timeline import StepView, step_views
from keyeloop.agent.wording import clean
from keyeloop.runtime.content import MediaRef, images_of
from keyeloop.runtime.events import Event, RunStart, ToolReturned
from keyeloop.runtime.journal import UNSTEADY
from keyeloop.runtime.wire import parts_from_wire

MOST_CHANGES = 40
VALUE_CHARS = 600
MOST_PICTURES = 24
MOST_STEPS = 400
"""More steps than this are not laid out."""
_PASSED_OVER = UNSTEADY | {
    *("seq", "path", "raw", "tokens"),
    *("usage", "input_tokens", "visual_tokens"),
}
"""Times and ids; fields that repeat in another form what others say, or tell where a file lay; counts of tokens, which
follow from the rest and from what a server had in its cache."""


@dataclass(frozen=True)
class Change:
    """One field that is not alike; an absent one is empty."""

    field: str
    left: str
    right: str


@dataclass(frozen=True)
class Row:
    """A step of each run; None where one has no more."""

    left: StepView | None
    right: StepView | None
    same: bool
    first: bool
    """The first that is not the same."""


@dataclass(frozen=True)
class Comparison:
    """What a page of two runs shows."""

    began: tuple[Change, ...]
    """How they began differently: question, model, settings, sources."""
    changes: tuple[Change, ...]
    """Of the first event that is not alike."""
    kind: str
    """Of that event; empty where all are alike."""
    turn: int
    """Of that event; 0 where it belongs to no step."""
    pictures: tuple[tuple[MediaRef, MediaRef], ...]
    """Pictures of that step that are not alike, left and right."""
    rows: tuple[Row, ...]


def compare(left: OpenedRun, right: OpenedRun) -> Comparison:
    """Lay two runs beside each other, step by step."""
    began = tuple(_changes(_steady(left.run.start), _steady(right.run.start)))
    events = [[event for event in run.run.events if not isinstance(event, RunStart)] for run in (left, right)]
    place = next(
        (at for at, (one, other) in enumerate(zip(*events, strict=False)) if _steady(one) != _steady(other)),
        min(map(len, events)),
    )
    one, other = (found[place] if place < len(found) else None for found in events)
    changes = tuple(_changes(_steady(one), _steady(other)))
    turn = int(getattr(one or other, "turn", 0) or 0)
    return Comparison(
        began=began,
        changes=changes,
        kind="" if one is None and other is None else _kind(one, other),
        turn=turn,
        pictures=tuple(_pictures(left, right, turn)) if changes else (),
        rows=tuple(_rows(left, right, turn, bool(changes))),
    )


def _rows(left: OpenedRun, right: OpenedRun, turn: int, differ: bool) -> Iterator[Row]:
    steps = [{view.step.turn: view for view in step_views(run, 0, MOST_STEPS)} for run in (left, right)]
    for number in sorted(steps[0].keys() | steps[1].keys()):
        same = not differ or (turn > 0 and number < turn)
        if turn == 0 and differ:  # they part behind their last step
            same = number in steps[0] and number in steps[1]
        yield Row(steps[0].get(number), steps[1].get(number), same, differ and number == turn)


def _kind(one: Event | None, other: Event | None) -> str:
    kinds = [event.kind.replace("_", " ") if event else "nothing" for event in (one, other)]
    return kinds[0] if kinds[0] == kinds[1] else f"{kinds[0]} against {kinds[1]}"


def _steady(event: Event | None) -> Any:
    return {} if event is None else _kept(event.model_dump(mode="json", fallback=str))


def _kept(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _kept(item) for name, item in value.items() if name not in _PASSED_OVER}
    return [_kept(item) for item in value] if isinstance(value, list | tuple) else value


def _changes(left: Any, right: Any) -> Iterator[Change]:
    for number, (field, one, other) in enumerate(_walk("", left, right)):
        if number == MOST_CHANGES:
            return
        yield Change(clean(field), one, other)


def _walk(field: str, left: Any, right: Any) -> Iterator[tuple[str, str, str]]:
    if left == right:
        return
    if isinstance(left, Mapping) and isinstance(right, Mapping) and left and right:
        for name in {**left, **right}:
            yield from _walk(f"{field}.{name}" if field else str(name), left.get(name), right.get(name))
    elif isinstance(left, list) and isinstance(right, list) and left and right:
        for place in range(max(len(left), len(right))):
            pair = (side[place] if place < len(side) else None for side in (left, right))
            yield from _walk(f"{field}[{place}]", *pair)
    else:
        yield field or "event", _said(left), _said(right)


def _said(value: Any) -> str:
    if value in (None, {}, []):
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return clean(text if len(text) <= VALUE_CHARS else text[:VALUE_CHARS] + " …")


def _pictures(left: OpenedRun, right: OpenedRun, turn: int) -> Iterator[tuple[MediaRef, MediaRef]]:
    """Pictures that the step of both runs was given in the same place, and that are not alike."""
    for mine, theirs in zip(_given(left, turn), _given(right, turn), strict=False):
        if mine.sha256 != theirs.sha256:
            yield mine, theirs


def _given(opened: OpenedRun, turn: int) -> list[MediaRef]:
    results = [event for event in opened.run.events if isinstance(event, ToolReturned) and event.turn == turn]
    parts = [part for event in results for part in parts_from_wire(event.parts)]
    return [image.media for part in parts for image in images_of(part)][:MOST_PICTURES]
