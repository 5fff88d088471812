"""Where two runs part, and everything in which they differ from there on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from keyeloop.agent.comparing.pictures import PictureDifference, compare_pictures
from keyeloop.runtime.content import Image, Message, Part, Text, images_of
from keyeloop.runtime.events import RunEnded
from keyeloop.runtime.trajectory import CallStep, Exchange, Step, Trajectory
from keyeloop.runtime.wire import from_wire, parts_from_wire


@dataclass(frozen=True)
class Difference:
    """One thing that is other in two runs."""

    question: int
    """1, 2, ...; 0 for what holds for the whole run."""
    step: int
    """Its place in the question: 1, 2, ...; 0 for the question itself and its end."""
    what: str
    """Such as ``question``, ``reply``, ``call``, ``result of zoom``, ``picture f2``, ``answer``."""
    one: str
    """As it is in the first run; empty where it has none."""
    other: str
    picture: PictureDifference | None = None
    """For pictures: how they differ."""

    @property
    def where(self) -> str:
        question = f"question {self.question}, " if self.question > 1 else ""
        return f"{question}step {self.step}" if self.step else question.removesuffix(", ") or "run"


@dataclass(frozen=True)
class Comparison:
    """Two runs and their differences, in order; times, ids and counts of tokens are none."""

    one: Trajectory
    other: Trajectory
    differences: tuple[Difference, ...]

    @property
    def first(self) -> Difference | None:
        """Where they part; None for equal runs."""
        return next(iter(self.differences), None)


def compare(one: Trajectory, other: Trajectory) -> Comparison:
    """Hold two runs against each other, step by step, pictures by their pixels."""
    return Comparison(one, other, tuple(_Comparing(one, other).all()))


class _Comparing:
    def __init__(self, one: Trajectory, other: Trajectory) -> None:
        self.one, self.other = one, other
        self.question = self.step = 0

    def all(self) -> Iterator[Difference]:
        a, b = self.one.start, self.other.start
        yield from self._text("model", a.model, b.model)
        yield from self._text("tools", ", ".join(t.name for t in a.tools), ", ".join(t.name for t in b.tools))
        inputs = [" ".join(f"{s.name}:{s.sha256[:12]}" for s in start.inputs) for start in (a, b)]
        yield from self._text("inputs", *inputs)
        for number, pair in enumerate(zip_longest(self.one.exchanges, self.other.exchanges), 1):
            self.question, self.step = number, 0
            yield from self._exchange(*pair)

    def _exchange(self, a: Exchange | None, b: Exchange | None) -> Iterator[Difference]:
        if a is None or b is None:
            yield self._differ("question", a.question if a else "", b.question if b else "")
            return
        yield from self._text("question", a.question, b.question)
        yield from self._messages([from_wire(m) for m in a.asked.messages], [from_wire(m) for m in b.asked.messages])
        for place, (mine, theirs) in enumerate(zip_longest(a.steps, b.steps), 1):
            self.step = place
            yield from self._step(mine, theirs)
        self.step = 0
        yield from self._end(a.end, b.end)

    def _messages(self, a: Sequence[Message], b: Sequence[Message]) -> Iterator[Difference]:
        for mine, theirs in zip_longest(a, b):
            what = f"first {(mine or theirs).role} message"
            yield from self._parts(what, mine.parts if mine else (), theirs.parts if theirs else ())

    def _step(self, a: Step | None, b: Step | None) -> Iterator[Difference]:
        if a is None or b is None:
            yield self._differ("step", _step_words(a), _step_words(b))
            return
        one, other = (from_wire(step.reply.message) if step.reply else None for step in (a, b))
        yield from self._text("thinking", one.reasoning if one else "", other.reasoning if other else "")
        yield from self._text("reply", one.text if one else "no reply", other.text if other else "no reply")
        for mine, theirs in zip_longest(a.calls, b.calls):
            yield from self._call(mine, theirs)
        codes = [", ".join(notice.code for notice in step.notices) for step in (a, b)]
        yield from self._text("notices", *codes)
        evicted = [", ".join(handle for edit in step.edits for handle in edit.evicted) for step in (a, b)]
        yield from self._text("pictures that left the context", *evicted)

    def _call(self, a: CallStep | None, b: CallStep | None) -> Iterator[Difference]:
        yield from self._text("call", _call_words(a), _call_words(b))
        if a is None or b is None or a.called.call.name != b.called.call.name:
            return
        what = f"result of {a.called.call.name}"
        if a.returned is None or b.returned is None:
            yield from self._text(what, _has(a), _has(b))
            return
        yield from self._parts(what, parts_from_wire(a.returned.parts), parts_from_wire(b.returned.parts))

    def _parts(self, what: str, a: Sequence[Part], b: Sequence[Part]) -> Iterator[Difference]:
        yield from self._text(what, _texts(a), _texts(b))
        for mine, theirs in zip_longest(_pictures(a), _pictures(b)):
            yield from self._picture(what, mine, theirs)

    def _picture(self, what: str, a: Image | None, b: Image | None) -> Iterator[Difference]:
        if a is None or b is None:
            yield self._differ(f"picture in {what}", _picture_words(a), _picture_words(b))
        elif a.media.sha256 != b.media.sha256:
            found = compare_pictures(a.media, self.one.media, b.media, self.other.media)
            name = a.view.handle if a.view else f"in {what}"
            yield self._differ(f"picture {name}", _picture_words(a), _picture_words(b), found)
        elif a.view != b.view:
            yield self._differ(f"place of picture in {what}", _picture_words(a), _picture_words(b))

    def _end(self, a: RunEnded | None, b: RunEnded | None) -> Iterator[Difference]:
        yield from self._text("status", a.status if a else "in flight", b.status if b else "in flight")
        yield from self._text("answer", a.answer if a else "", b.answer if b else "")
        cited = [" ".join(citation.text for citation in end.citations) if end else "" for end in (a, b)]
        if (a.answer if a else "") == (b.answer if b else ""):
            yield from self._text("citations", *cited)

    def _text(self, what: str, one: str, other: str) -> Iterator[Difference]:
        if one != other:
            yield self._differ(what, one, other)

    def _differ(self, what: str, one: str, other: str, picture: PictureDifference | None = None) -> Difference:
        return Difference(self.question, self.step, what, one, other, picture)


def _texts(parts: Sequence[Part]) -> str:
    return "\n".join(part.text for part in parts if isinstance(part, Text))


def _pictures(parts: Sequence[Part]) -> list[Image]:
    return [image for part in parts for image in images_of(part)]


def _picture_words(image: Image | None) -> str:
    if image is None:
        return ""
    size = f"{image.media.width}x{image.media.height}, sha256 {image.media.sha256[:12]}"
    if image.view is None:
        return size
    at = "" if image.view.time_s is None else f" at {image.view.time_s:.3f} s"
    region = image.view.region
    box = f"{region.x0:g},{region.y0:g},{region.x1:g},{region.y1:g}"
    return f"{image.view.handle} of {image.view.source}{at}, box {box}, {size}"


def _call_words(call: CallStep | None) -> str:
    if call is None:
        return ""
    arguments: Any = dict(call.called.call.arguments)
    return f"{call.called.call.name}({json.dumps(arguments, ensure_ascii=False, sort_keys=True)})"


def _step_words(step: Step | None) -> str:
    if step is None:
        return ""
    if step.calls:
        return ", ".join(_call_words(call) for call in step.calls)
    return from_wire(step.reply.message).text if step.reply else "no reply"


def _has(call: CallStep) -> str:
    return "no result" if call.returned is None else "a result"
