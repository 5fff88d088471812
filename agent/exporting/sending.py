"""Spans of runs into a file or to a collector, through OpenTelemetry's SDK; it is imported here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from keyeloop import __version__
from keyeloop.agent.exporting.spans import emit_spans
from keyeloop.runtime.errors import ConfigError, OperatorError
from keyeloop.runtime.trajectory import Trajectory

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter


def spans_as_json(runs: Iterable[Trajectory], *, content: bool = False) -> list[str]:
    """Each span as the SDK writes it, one line a span."""
    with _Needs("opentelemetry-sdk"):
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    exporter = InMemorySpanExporter()
    export_spans(runs, exporter, content=content)
    return [span.to_json(indent=None) for span in exporter.get_finished_spans()]


def send_spans(runs: Iterable[Trajectory], endpoint: str, *, content: bool = False) -> int:
    """Send spans to a collector by OTLP over HTTP; how many. OperatorError where it did not take them."""
    with _Needs("opentelemetry-exporter-otlp-proto-http"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    return export_spans(runs, OTLPSpanExporter(endpoint=endpoint), content=content)


def export_spans(runs: Iterable[Trajectory], exporter: SpanExporter, *, content: bool = False) -> int:
    """Give the spans of runs to any exporter of the SDK; how many. OperatorError where it refuses them."""
    with _Needs("opentelemetry-sdk"):
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    kept = InMemorySpanExporter()
    resource = Resource.create({"service.name": "keyeloop", "service.version": __version__})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    for run in runs:
        emit_spans(run, provider.get_tracer("keyeloop", __version__), content=content)
    spans = kept.get_finished_spans()
    done = exporter.export(spans)
    if done is not SpanExportResult.SUCCESS:
        raise OperatorError(f"{type(exporter).__name__} did not take the spans: is the collector there?")
    return len(spans)


class _Needs:
    """Imports in this block need a package that only some installations have; ConfigError names it."""

    def __init__(self, package: str) -> None:
        self._package = package

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ModuleNotFoundError):
            raise ConfigError(f"exporting spans needs {self._package}: pip install 'keyeloop[otel]'") from None
