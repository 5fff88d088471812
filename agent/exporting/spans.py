"""A run as OpenTelemetry spans, with the names of the GenAI semantic conventions: any exporter of the SDK takes them.

A question is ``invoke_agent keyeloop``, each request below it ``chat MODEL``, each call ``execute_tool NAME``; their
times are the recorded ones. Texts are left out unless asked for, as the conventions have it; a picture is named
``sha256:...``, never sent.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from keyeloop.runtime.content import Message, Text, images_of
from keyeloop.runtime.events import ReplyReceived
from keyeloop.runtime.trajectory import CallStep, Exchange, Step, Trajectory
from keyeloop.runtime.wire import from_wire, parts_from_wire

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

AGENT = "keyeloop"
Attributes = dict[str, Any]


def emit_spans(run: Trajectory, tracer: Tracer, *, content: bool = False) -> None:
    """Give a run's spans to ``tracer``; with ``content`` the texts of messages, calls and results too."""
    for exchange in run.exchanges:
        _Question(run, exchange, tracer, content).emit()


class _Question:
    def __init__(self, run: Trajectory, exchange: Exchange, tracer: Tracer, content: bool) -> None:
        self._run, self._exchange, self._tracer, self._content = run, exchange, tracer, content
        self._model = exchange.asked.model

    def emit(self) -> None:
        exchange, usage = self._exchange, self._exchange.usage
        attributes = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": AGENT,
            "gen_ai.agent.version": exchange.asked.versions.get("keyeloop", ""),
            "gen_ai.usage.input_tokens": usage.input_tokens,
            "gen_ai.usage.output_tokens": usage.output_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
            "keyeloop.run.status": exchange.end.status if exchange.end else "in flight",
        }
        if self._content:
            asked = [from_wire(message) for message in exchange.asked.messages]
            attributes |= {
                "gen_ai.input.messages": json.dumps([_message(one) for one in asked if one.role != "system"])
            }
            system = [part for one in asked if one.role == "system" for part in _message(one)["parts"]]
            attributes |= {"gen_ai.system_instructions": json.dumps(system)} if system else {}
            if exchange.end is not None and exchange.end.answer:
                answer = Message("assistant", (Text(exchange.end.answer),))
                attributes["gen_ai.output.messages"] = json.dumps([_message(answer)])
        root = self._begin(f"invoke_agent {AGENT}", "INTERNAL", exchange.asked.time_s, attributes, None)
        for step in exchange.steps:
            self._step(step, root)
        failed = exchange.end is not None and exchange.end.status == "failed"
        if failed and exchange.end is not None:
            _fail(root, exchange.end.reason.partition(":")[0] or "failed", exchange.end.reason)
        root.end(_ns(exchange.last_s))

    def _step(self, step: Step, root: Span) -> None:
        if step.request is not None:
            attributes: Attributes = {"gen_ai.operation.name": "chat", **self._sampling()}
            span = self._begin(f"chat {self._model}", "CLIENT", step.request.time_s, attributes, root)
            span.set_attribute("keyeloop.turn", step.turn)
            if step.reply is None:
                _fail(span, "no_reply", "no reply is recorded")
                span.end(_ns(step.ended_s))
            else:
                self._reply(span, step.reply)
                span.end(_ns(step.reply.time_s))
        for call in step.calls:
            self._call(call, root, step.ended_s)

    def _reply(self, span: Span, reply: ReplyReceived) -> None:
        usage = reply.usage
        span.set_attributes(
            {
                "gen_ai.response.model": self._model,
                "gen_ai.response.finish_reasons": [reply.finish],
                "gen_ai.usage.input_tokens": usage.input_tokens,
                "gen_ai.usage.output_tokens": usage.output_tokens,
                "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
                "gen_ai.usage.image.input_tokens": usage.visual_tokens,
                "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
            }
        )
        if reply.first_token_s is not None:
            span.set_attribute("gen_ai.response.time_to_first_chunk", reply.first_token_s)
        if self._content:
            span.set_attribute("gen_ai.output.messages", json.dumps([_message(from_wire(reply.message))]))

    def _call(self, call: CallStep, root: Span, until_s: float) -> None:
        made, returned = call.called.call, call.returned
        attributes: Attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": made.name,
            "gen_ai.tool.type": "function",
            "gen_ai.tool.call.id": made.id,
        }
        if self._content:
            attributes["gen_ai.tool.call.arguments"] = json.dumps(dict(made.arguments), ensure_ascii=False)
        span = self._begin(f"execute_tool {made.name}", "INTERNAL", call.called.time_s, attributes, root)
        if returned is None:
            _fail(span, "no_result", "no result is recorded")
            span.end(_ns(until_s))
            return
        parts = parts_from_wire(returned.parts)
        if self._content:
            result = _message(Message("tool", parts, tool_call_id=made.id))["parts"]
            span.set_attribute("gen_ai.tool.call.result", json.dumps(result, ensure_ascii=False))
        if returned.error:
            _fail(span, "tool_error", "".join(part.text for part in parts if isinstance(part, Text))[:500])
        span.end(_ns(min(returned.time_s, call.called.time_s + returned.duration_s) or returned.time_s))

    def _sampling(self) -> Attributes:
        given = self._exchange.asked.config.get("sampling", {})
        names = ("temperature", "top_p", "top_k", "max_tokens", "seed")
        return {f"gen_ai.request.{name}": given[name] for name in names if given.get(name) is not None}

    def _begin(self, name: str, kind: str, time_s: float, attributes: Attributes, parent: Span | None) -> Span:
        from opentelemetry.trace import SpanKind, set_span_in_context

        common = {
            "gen_ai.provider.name": _provider(self._model),
            "gen_ai.request.model": self._model,
            "gen_ai.conversation.id": self._run.start.run_id,
        }
        context = None if parent is None else set_span_in_context(parent)
        return self._tracer.start_span(
            name, context, SpanKind[kind], attributes={**common, **attributes}, start_time=_ns(time_s)
        )


def _provider(model: str) -> str:
    if model.startswith("sglang"):
        return "sglang"
    return "openai_compatible" if model.startswith("http") else AGENT


def _message(message: Message) -> dict[str, Any]:
    """A message in the form of the conventions."""
    parts: list[dict[str, Any]] = [{"type": "reasoning", "content": message.reasoning}] if message.reasoning else []
    shown: list[dict[str, Any]] = []
    for part in message.parts:
        if isinstance(part, Text):
            shown.append({"type": "text", "content": part.text})
        for image in images_of(part):
            address = {} if image.view is None else {"source": image.view.source, "time_s": image.view.time_s}
            uri = f"sha256:{image.media.sha256}"
            shown.append({"type": "uri", "mime_type": image.media.mime, "modality": "image", "uri": uri, **address})
    if message.role == "tool":
        shown = [{"type": "tool_call_response", "id": message.tool_call_id, "response": shown}]
    calls = [
        {"type": "tool_call", "id": call.id, "name": call.name, "arguments": dict(call.arguments)}
        for call in message.tool_calls
    ]
    return {"role": message.role, "parts": [*parts, *shown, *calls]}


def _fail(span: Span, kind: str, words: str) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR, words))


def _ns(time_s: float) -> int:
    return round(time_s * 1e9)
