"""A run's steps in the form that the pages print: texts cut to what a person reads, times and tokens as places."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from keyeloop.agent.viewer.opened import OpenedRun
from keyeloop.agent.wording import clean
from keyeloop.runtime.citations import parse_citations
from keyeloop.runtime.content import Image, Part, Text, images_of
from keyeloop.runtime.evidence import Citation
from keyeloop.runtime.trajectory import CallStep, Exchange, Step
from keyeloop.runtime.wire import parts_from_wire

CHUNK_STEPS = 20
"""So many steps come with the page; the others when they are scrolled to."""
SHOWN_CHARS, SHOWN_LINES = 1200, 14
"""More of a text is behind a fold."""
MOST_CHARS = 20_000
"""More of a text is not on the page; the event has it."""
BLOCK_CHARS = 72
"""A longer argument stands on lines of its own."""


@dataclass(frozen=True)
class Shown:
    """A text: what is seen at once, and all of it where that is more."""

    head: str
    whole: str
    """Empty where ``head`` is all."""
    left_chars: int = 0
    """What even ``whole`` leaves out."""


@dataclass(frozen=True)
class Argument:
    """One argument of a call, as JSON; a long or many-lined text as it is, in ``block``."""

    name: str
    value: str
    block: Shown | None


@dataclass(frozen=True)
class CallView:
    """A call and what came of it."""

    id: str
    name: str
    arguments: tuple[Argument, ...]
    text: Shown
    pictures: tuple[Image, ...]
    returned: bool
    error: bool
    duration_s: float
    traceback: str
    call_seq: int
    result_seq: int


@dataclass(frozen=True)
class Lap:
    """A stretch of the run's time, in percent of it."""

    kind: str
    """``model`` or ``tool``."""
    x_percent: float
    width_percent: float


@dataclass(frozen=True)
class StepView:
    """One turn, ready to print. Tokens are also given in percent of the run's longest input."""

    step: Step
    exchange: Exchange
    opens: bool
    """The first step of one of several questions."""
    closes: bool
    """The last step of a question that another follows."""
    reasoning: Shown
    text: Shown
    calls: tuple[CallView, ...]
    laps: tuple[Lap, ...]
    cached_percent: float
    fresh_percent: float
    visual_percent: float


def step_views(opened: OpenedRun, first: int = 0, count: int = CHUNK_STEPS) -> list[StepView]:
    """``count`` steps from the ``first`` on, counted from 0."""
    placed = [(exchange, step) for exchange in opened.run.exchanges for step in exchange.steps]
    most = max((step.reply.usage.input_tokens for _, step in placed if step.reply), default=0) or 1
    return [_view(exchange, step, most, opened) for exchange, step in placed[first : first + count]]


def shown(text: str, chars: int = SHOWN_CHARS, lines: int = SHOWN_LINES) -> Shown:
    """A text with its control characters spelt out, folded where it is long."""
    whole = clean(text[: MOST_CHARS + 1]).strip("\n")
    left = max(0, len(text) - MOST_CHARS)
    whole = whole[:MOST_CHARS] if left else whole
    head = "\n".join(whole.split("\n")[:lines])[:chars]
    return Shown(head, "" if head == whole and not left else whole, left)


def answer_pieces(answer: str, citations: tuple[Citation, ...]) -> list[tuple[str, Citation | None]]:
    """An answer as texts and, in their places, its citations."""
    pieces: list[tuple[str, Citation | None]] = []
    end = 0
    for raw, citation in zip(parse_citations(answer), citations, strict=False):
        if raw.start > end:
            pieces.append((clean(answer[end : raw.start]), None))
        pieces.append(("", citation))
        end = max(end, raw.end)
    return [*pieces, (clean(answer[end:]), None)]


def _view(exchange: Exchange, step: Step, most_tokens: int, opened: OpenedRun) -> StepView:
    message = step.reply.message if step.reply else None
    usage = step.reply.usage if step.reply else None
    parts = parts_from_wire(message.parts) if message else ()
    cached = usage.cached_tokens if usage else 0
    visual = max(0, min(usage.visual_tokens, usage.input_tokens - cached)) if usage else 0
    fresh = max(0, usage.input_tokens - cached - visual) if usage else 0
    several = len(opened.run.exchanges) > 1
    return StepView(
        step=step,
        exchange=exchange,
        opens=several and step is exchange.steps[0],
        closes=several and exchange is not opened.run.exchanges[-1] and step is exchange.steps[-1],
        reasoning=shown(message.reasoning if message else ""),
        text=shown(_text(parts)),
        calls=tuple(_call(call) for call in step.calls),
        laps=tuple(_laps(exchange, step)),
        cached_percent=round(100 * cached / most_tokens, 2),
        fresh_percent=round(100 * fresh / most_tokens, 2),
        visual_percent=round(100 * visual / most_tokens, 2),
    )


def _call(step: CallStep) -> CallView:
    returned = step.returned
    parts = parts_from_wire(returned.parts) if returned else ()
    return CallView(
        id=step.called.call.id,
        name=step.called.call.name,
        arguments=tuple(_argument(name, value) for name, value in step.called.call.arguments.items()),
        text=shown(_text(parts)),
        pictures=tuple(image for part in parts for image in images_of(part)),
        returned=returned is not None,
        error=returned is not None and returned.error,
        duration_s=returned.duration_s if returned else 0.0,
        traceback=clean(str(returned.details.get("traceback") or "")) if returned else "",
        call_seq=step.called.seq,
        result_seq=returned.seq if returned else -1,
    )


def _argument(name: str, value: object) -> Argument:
    if isinstance(value, str) and ("\n" in value or len(value) > BLOCK_CHARS):
        return Argument(clean(name), "", shown(value))
    said = json.dumps(value, ensure_ascii=False, default=str)
    return Argument(clean(name), clean(said), None) if len(said) < SHOWN_CHARS else Argument(name, "", shown(said))


def _text(parts: Iterable[Part]) -> str:
    return "\n".join(part.text for part in parts if isinstance(part, Text))


def _laps(exchange: Exchange, step: Step) -> Iterable[Lap]:
    begin_s, length_s = exchange.asked.time_s, exchange.duration_s or 1.0

    def lap(kind: str, from_s: float, to_s: float) -> Lap:
        left = min(max((from_s - begin_s) / length_s, 0.0), 1.0) * 100
        right = min(max((to_s - begin_s) / length_s, 0.0), 1.0) * 100
        return Lap(kind, round(left, 2), round(max(right - left, 0.4), 2))

    if step.request and step.reply:
        yield lap("model", step.request.time_s, step.reply.time_s)
    for call in step.calls:
        if call.returned:
            ended_s = max(call.returned.time_s, call.called.time_s + call.returned.duration_s)
            yield lap("tool", call.called.time_s, ended_s)
