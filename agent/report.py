"""A run read back for a terminal: every step, where it looked, the answer; also of a run that was cut off."""

from __future__ import annotations

import time
from collections.abc import Iterator

from rich.console import Console
from rich.text import Text as Styled

from keyeloop.agent.live import ending_words
from keyeloop.agent.wording import (
    call_words,
    citation_words,
    clean,
    clipped,
    counted,
    parts_words,
    source_words,
    span_words,
    strip,
    usage_words,
)
from keyeloop.runtime.trajectory import CallStep, Exchange, Step, Trajectory
from keyeloop.runtime.wire import from_wire, parts_from_wire

Line = tuple[str, str]
"""Text and its style."""


def print_report(run: Trajectory, console: Console, *, full: bool = False) -> None:
    """Print a run; ``full`` leaves texts uncut."""
    for text, style in report(run, full=full):
        console.print(Styled(text, style=style), soft_wrap=not console.is_terminal)


def report(run: Trajectory, *, full: bool = False) -> Iterator[Line]:
    """The lines of a run, top to bottom."""
    first, *later = run.exchanges
    yield clean(first.question), "bold"
    yield f"{run.start.model}, {_when(run.start.time_s)}, {_status(first)}: {run.folder}", "dim"
    for source in run.start.inputs:
        yield source_words(source), "dim"
    yield "", ""
    for step in first.steps:
        yield from _step(step, full)
    for before, exchange in zip(run.exchanges, later, strict=False):
        yield "", ""
        yield from _ending(before)
        yield "", ""
        yield clean(exchange.question), "bold"
        asked = f"question {exchange.number}, {exchange.asked.model}"
        yield f"{asked}, {_when(exchange.asked.time_s)}, {_status(exchange)}", "dim"
        yield "", ""
        for step in exchange.steps:
            yield from _step(step, full)
    yield from _looked(run)
    yield "", ""
    yield from _ending(run.exchanges[-1])


def _step(step: Step, full: bool) -> Iterator[Line]:
    limit = 100_000 if full else 400
    for edit in step.edits:
        yield f"   ✂ {clipped(edit.stub, limit)}", "yellow"
    if step.reply is None:
        asked = f"asked with {counted(step.request.input_tokens, 'token')}" if step.request else "not asked"
        yield f"{step.turn:2} {asked}; no reply is recorded", "dim"
    else:
        first = "" if step.reply.first_token_s is None else f", first token after {step.reply.first_token_s:.2f} s"
        yield f"{step.turn:2} {step.reply.duration_s:.2f} s{first}, {usage_words(step.reply.usage)}", "dim"
        message = from_wire(step.reply.message)
        if message.reasoning.strip():
            yield f"   … {clipped(message.reasoning, limit)}", "dim italic"
        if message.text.strip():
            yield f"   {clipped(message.text, limit)}", ""
    for call in step.calls:
        yield from _call(call, limit)
    for notice in step.notices:
        yield f"   ! {clipped(notice.text, limit)}", "yellow"


def _call(call: CallStep, limit: int) -> Iterator[Line]:
    yield f"   → {call_words(call.called.call)}", "cyan"
    if call.returned is None:
        yield "   ← no result is recorded", "yellow"
        return
    words = parts_words(parts_from_wire(call.returned.parts), limit)
    yield f"   ← {words}  {call.returned.duration_s:.2f} s", "red" if call.returned.error else "green"
    trace = call.returned.details.get("traceback")
    if trace:
        yield "     " + clean(str(trace)).strip().replace("\n", "\n     "), "dim"


def _looked(run: Trajectory) -> Iterator[Line]:
    looked = run.looked()
    if looked:
        yield "\nwhere it looked", "bold"
    lengths = {source.name: source.duration_s for source in run.start.inputs}
    for name, spans in looked.items():
        duration_s = lengths.get(name) or max((span.end_s for span in spans), default=0.0)
        if not spans or duration_s <= 0:
            yield f"  {name}", ""
            continue
        yield f"  {name} {strip(spans, duration_s)}", "green"
        for span in spans:
            yield f"    {span_words(span)}", ""


def _ending(asked: Exchange) -> Iterator[Line]:
    if asked.end is None:
        after = f"{counted(len(asked.steps), 'step')}, {asked.duration_s:.1f} s, {usage_words(asked.usage)}"
        yield f"in flight: the record has no end; the run goes on elsewhere or was killed. So far {after}", "yellow"
        return
    if asked.end.answer:
        yield clean(asked.end.answer), "bold"
    for citation in asked.end.citations:
        yield f"  {citation_words(citation)}", "cyan" if citation.seen else "yellow"
    yield ending_words(asked.end, len(asked.steps)), "dim"


def _when(time_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_s))


def _status(asked: Exchange) -> str:
    return asked.end.status if asked.end else "in flight"
