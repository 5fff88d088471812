"""Spans of runs into a file or to a collector, through OpenTelemetry's SDK; it is imported here and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from keyeloop import __version__
from keyeloop.agent.exporting.spans import emit_spans
from keyeloop.runtime.errors import ConfigError, InputError, OperatorError
from keyeloop.runtime.trajectory import Trajectory

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

BATCH_SPANS = 512
"""Of one request: what the SDK sends at once, too."""


def spans_as_json(runs: Iterable[Trajectory], *, content: bool = False) -> list[str]:
    """Each span as the SDK writes it, one line a span."""
    with _Needs("opentelemetry-sdk"):
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    exporter = InMemorySpanExporter()
    export_spans(runs, exporter, content=content)
    return [span.to_json(indent=None) for span in exporter.get_finished_spans()]


def send_spans(runs: Iterable[Trajectory], endpoint: str | None = None, *, content: bool = False) -> int:
    """Send spans to a collector by OTLP over HTTP; how many.

    ``endpoint`` is its address, such as ``http://127.0.0.1:4318``; without one the exporter goes by the environment
    variables of OpenTelemetry (``OTEL_EXPORTER_OTLP_ENDPOINT``, ``..._HEADERS``, ``..._CERTIFICATE``, ...). Raises
    InputError for no address, OperatorError where the collector did not take the spans.
    """
    with _Needs("opentelemetry-exporter-otlp-proto-http"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    exporter = OTLPSpanExporter(endpoint=None if endpoint is None else traces_url(endpoint))
    try:
        return export_spans(runs, exporter, content=content)
    finally:
        exporter.shutdown()  # type: ignore[no-untyped-call]  # theirs has no types


def traces_url(endpoint: str) -> str:
    """Where a collector takes spans: ``/v1/traces`` where ``endpoint`` names no path. InputError for no address."""
    try:
        found = urlsplit(endpoint)
        named = found.scheme in ("http", "https") and found.hostname and (found.port is None or found.port)
    except ValueError:
        named = None
    if not named:
        raise InputError(f"{endpoint!r} is no address of a collector: name one such as http://127.0.0.1:4318")
    return found._replace(path="/v1/traces").geturl() if found.path in ("", "/") else endpoint


def endpoint_in_environment() -> str | None:
    """The collector that the variables of OpenTelemetry name. ConfigError where they ask for gRPC."""
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    found = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if found and protocol == "grpc":
        raise ConfigError(
            "the environment asks for OTLP over gRPC, and spans are sent over HTTP: name the collector's HTTP port, "
            "as a rule 4318, with --endpoint"
        )
    return found or None


def export_spans(runs: Iterable[Trajectory], exporter: SpanExporter, *, content: bool = False) -> int:
    """Give the spans of runs to any exporter of the SDK; how many. OperatorError where it refuses them."""
    with _Needs("opentelemetry-sdk"):
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    kept = InMemorySpanExporter()
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "keyeloop"}
    resource = Resource.create({**named, "service.version": __version__})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    for run in runs:
        emit_spans(run, provider.get_tracer("keyeloop", __version__), content=content)
    spans = kept.get_finished_spans()
    for first in range(0, len(spans), BATCH_SPANS):
        if exporter.export(spans[first : first + BATCH_SPANS]) is not SpanExportResult.SUCCESS:
            told = f"{first} of {len(spans)} spans went out before; " if first else ""
            raise OperatorError(f"{type(exporter).__name__} did not take the spans: {told}is the collector there?")
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
