"""A run as an ATIF 1.8 document (harbor's trajectory format): one step for each turn of a model or a person.

ATIF has pictures and no clips: frames stand one by one behind their handle and time, and the address of each (source,
moment, box) is in the result's ``extra``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from keyeloop.agent.exporting.pictures import ExportedPictures
from keyeloop.model_backend.openai_chat.messages import name, tool_form
from keyeloop.runtime.content import Message, Part, Text, Usage, images_of
from keyeloop.runtime.trajectory import CallStep, Exchange, Step, Trajectory
from keyeloop.runtime.wire import from_wire, parts_from_wire

VERSION = "ATIF-v1.8"
Json = dict[str, Any]


def atif_document(run: Trajectory, pictures: ExportedPictures) -> Json:
    """The whole run as JSON, pictures by the names that ``pictures`` gives. JournalError for one that is missing."""
    steps = list(_Steps(run, pictures).all())
    for number, step in enumerate(steps, 1):
        step["step_id"] = number
    return {
        "schema_version": VERSION,
        "session_id": run.start.run_id,
        "trajectory_id": run.start.run_id,
        "agent": {
            "name": "keyeloop",
            "version": run.start.versions.get("keyeloop", "unknown"),
            "model_name": run.start.model,
            "tool_definitions": [tool_form(tool) for tool in run.start.tools],
        },
        "steps": steps,
        "final_metrics": _final(run, len(steps)),
        "extra": {
            "status": run.status,
            "sources": [asdict(source) for source in run.start.inputs],
            "citations": [asdict(citation) for citation in run.citations],
            "format": run.start.format,
        },
    }


class _Steps:
    def __init__(self, run: Trajectory, pictures: ExportedPictures) -> None:
        self._run, self._pictures = run, pictures
        self._sequence: tuple[int, ...] = ()

    def all(self) -> Iterator[Json]:
        for exchange in self._run.exchanges:
            self._sequence = ()
            for wire in exchange.asked.messages:
                message = from_wire(wire)
                source = "system" if message.role == "system" else "user"
                yield {**_told(source, exchange.asked.time_s), "message": self._content(message.parts)}
            for step in exchange.steps:
                yield from self._step(exchange, step)

    def _step(self, exchange: Exchange, step: Step) -> Iterator[Json]:
        if step.reply is not None:
            message = from_wire(step.reply.message)
            made: Json = {
                **_told("agent", step.reply.time_s),
                "model_name": exchange.asked.model,
                "message": message.text,
                "llm_call_count": 1,
                "metrics": self._metrics(step),
            }
            if message.reasoning:
                made["reasoning_content"] = message.reasoning
            if step.calls:
                made["tool_calls"] = [_call(call) for call in step.calls]
                made["observation"] = {"results": [self._result(call) for call in step.calls if call.returned]}
            yield made
        for notice in step.notices:
            if notice.message is not None:
                told = self._content(from_wire(notice.message).parts)
                yield {**_told("user", notice.time_s), "message": told, "extra": {"notice": notice.code}}

    def _result(self, call: CallStep) -> Json:
        assert call.returned is not None
        parts = parts_from_wire(call.returned.parts)
        extra = {
            "error": call.returned.error,
            "duration_s": call.returned.duration_s,
            "views": [asdict(view) for view in call.returned.views],
        }
        return {"source_call_id": call.called.call.id, "content": self._content(parts), "extra": extra}

    def _content(self, parts: Sequence[Part]) -> str | list[Json]:
        if all(isinstance(part, Text) for part in parts):
            return Message("user", tuple(parts)).text
        made: list[Json] = []
        for part in parts:
            if isinstance(part, Text):
                made.append({"type": "text", "text": part.text})
            for image in images_of(part):
                path = self._pictures.name(image.media, self._run.media)
                made.append({"type": "text", "text": f"{name(image)}:"})
                made.append({"type": "image", "source": {"media_type": image.media.mime, "path": path}})
        return made

    def _metrics(self, step: Step) -> Json:
        assert step.reply is not None
        usage, tokens = step.reply.usage, step.reply.tokens
        extra = {
            "visual_tokens": usage.visual_tokens,
            "reasoning_tokens": usage.reasoning_tokens,
            "first_token_s": step.reply.first_token_s,
            "duration_s": step.reply.duration_s,
        }
        made: Json = {**_usage(usage), "extra": extra}
        if tokens is not None:
            made["prompt_token_ids"] = list(self._sequence[: tokens.kept] + tokens.prompt_ids)
            made["completion_token_ids"] = list(tokens.ids)
            made["logprobs"] = list(tokens.logprobs)
            self._sequence = tokens.sequence(self._sequence)
        return made


def _usage(usage: Usage) -> Json:
    made: Json = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "cached_tokens": usage.cached_tokens,
    }
    return made if usage.cost is None else {**made, "cost_usd": usage.cost}


def _final(run: Trajectory, steps: int) -> Json:
    made = {f"total_{name}": value for name, value in _usage(run.usage).items()}
    return {**made, "total_steps": steps, "extra": {"duration_s": run.duration_s, "visual": run.usage.visual_tokens}}


def _call(call: CallStep) -> Json:
    made = call.called.call
    return {"tool_call_id": made.id, "function_name": made.name, "arguments": dict(made.arguments)}


def _told(source: str, time_s: float) -> Json:
    return {"step_id": 0, "timestamp": datetime.fromtimestamp(time_s, UTC).isoformat(), "source": source}
