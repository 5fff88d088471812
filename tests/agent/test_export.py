"""Runs exported: ATIF by harbor's own models, spans by the SDK's exporter, messages, token rows as they were served."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from keyeloop.agent.agent import Agent
from keyeloop.agent.exporting.atif import atif_document
from keyeloop.agent.exporting.chat import chat_record
from keyeloop.agent.exporting.pictures import ExportedPictures
from keyeloop.agent.exporting.sending import export_spans, send_spans
from keyeloop.agent.exporting.tokens import outputs_of, prompts_of, token_rows
from keyeloop.model_backend.scripted import Script, call, calls
from keyeloop.runtime.budget import Limits
from keyeloop.runtime.errors import BackendError, ConfigError, InputError
from keyeloop.runtime.trajectory import Trajectory
from tests.agent.cut_runs import Steadfast
from tests.agent.small_tools import add, look
from tests.agent.test_cli import keyeloop
from tests.model_backend.native_replies import generated, native_server, spoken

SCRIPT: list[Script] = [
    calls(("look", {"at_s": 1}), ("add", {"a": 1, "b": 2}), reasoning="Both."),
    call("add", a="x"),
    "",
    "3 [f1 100,100,200,200]",
    call("look", at_s=2),
    "again [f2]",
]


@pytest.fixture
async def run(tmp_path: Path) -> Trajectory:
    """Two questions, pictures, an error and a reply that could not be used."""
    first = await Agent(Steadfast(SCRIPT), [look, add], runs=tmp_path / "runs").run("what was there?")
    await first.ask("and then?")
    return Trajectory.read(first.run)


@pytest.fixture(scope="session")
def harbor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """harbor's own models of the format, out of its wheel, which asks for a newer Python as a whole."""
    folder = tmp_path_factory.mktemp("harbor")
    fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--python-version=3.12"]
    fetch += ["--only-binary=:all:", "--dest", str(folder), "harbor==0.25.0"]
    if subprocess.run(fetch, capture_output=True, timeout=120).returncode:
        pytest.skip("harbor's wheel cannot be fetched here")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(
            folder, [name for name in packed.namelist() if name.startswith("harbor/models/trajectories/")]
        )
    sys.path.insert(0, str(folder))
    yield importlib.import_module("harbor.models.trajectories")
    sys.path.remove(str(folder))


@pytest.mark.net
async def test_atif_passes_harbors_own_models(run: Trajectory, harbor: Any, tmp_path: Path) -> None:
    document = atif_document(run, ExportedPictures(tmp_path / "out"))
    read = harbor.Trajectory.model_validate_json(json.dumps(document))
    assert read.schema_version == "ATIF-v1.8" and read.to_json_dict()["steps"]
    sources = [step.source for step in read.steps]
    assert sources == ["system", "user", "agent", "agent", "agent", "user", "agent", "user", "agent", "agent"]
    first = read.steps[2]
    assert first.reasoning_content == "Both." and [made.function_name for made in first.tool_calls] == ["look", "add"]
    shown = first.observation.results[0]
    (picture,) = (part for part in shown.content if part.type == "image")
    pixels = cv2.imread(str(tmp_path / "out" / picture.source.path))
    assert pixels is not None and pixels.shape == (280, 280, 3)
    assert shown.extra["views"][0]["time_s"] == 1.0 and shown.extra["views"][0]["handle"] == "f1"
    assert read.final_metrics.total_prompt_tokens == run.usage.input_tokens
    assert read.final_metrics.total_steps == len(read.steps) and read.agent.tool_definitions


def spans_of(run: Trajectory, *, content: bool = False) -> list[ReadableSpan]:
    exporter = InMemorySpanExporter()
    assert export_spans([run], exporter, content=content) == len(exporter.get_finished_spans())
    return list(exporter.get_finished_spans())


async def test_spans_have_the_names_of_the_conventions(run: Trajectory) -> None:
    spans = spans_of(run)
    assert {span.name for span in spans} == {
        "invoke_agent keyeloop", "chat scripted", "execute_tool look", "execute_tool add",
    }  # fmt: skip
    chats = [span for span in spans if span.name == "chat scripted"]
    assert len(chats) == len(run.steps) and all(span.kind.name == "CLIENT" for span in chats)
    roots = [span for span in spans if span.parent is None]
    assert [span.name for span in roots] == ["invoke_agent keyeloop"] * 2
    ids = {span.context.span_id for span in roots if span.context}
    assert all(span.parent.span_id in ids for span in spans if span.parent)
    reply = run.steps[0].reply
    assert reply is not None
    told = dict(chats[0].attributes or {})
    assert told["gen_ai.operation.name"] == "chat" and told["gen_ai.request.model"] == "scripted"
    assert told["gen_ai.usage.input_tokens"] == reply.usage.input_tokens
    assert told["gen_ai.usage.output_tokens"] == reply.usage.output_tokens
    assert told["gen_ai.response.finish_reasons"] == ("tool_calls",)
    assert told["gen_ai.conversation.id"] == run.start.run_id and told["gen_ai.request.max_tokens"]
    assert chats[0].end_time == round(reply.time_s * 1e9)
    made = [dict(span.attributes or {}) for span in spans if span.name == "execute_tool add"]
    assert {one["gen_ai.tool.call.id"] for one in made} == {"call-2", "call-3"}
    assert [one.get("error.type") for one in made] == [None, "tool_error"]
    assert all(span.start_time is not None and span.end_time is not None for span in spans)
    assert all(span.start_time <= span.end_time for span in spans if span.start_time and span.end_time)
    assert not any("messages" in name or "arguments" in name for span in spans for name in span.attributes or ())


async def test_spans_tell_texts_when_asked_and_failures_always(run: Trajectory, tmp_path: Path) -> None:
    texts = " ".join(str(value) for span in spans_of(run, content=True) for value in (span.attributes or {}).values())
    assert (
        "what was there?" in texts and '"reasoning"' in texts and "sha256:" in texts and "tool_call_response" in texts
    )

    def broken(request: object) -> str:
        raise BackendError("the server is gone")

    with pytest.raises(BackendError):
        await Agent(Steadfast([broken]), [], runs=tmp_path / "failed").run("?")
    (folder,) = (tmp_path / "failed").glob("[!.]*")
    spans = spans_of(Trajectory.read(folder))
    assert [dict(span.attributes or {})["error.type"] for span in spans] == ["no_reply", "BackendError"]
    assert all(span.status.status_code.name == "ERROR" for span in spans)


async def test_messages_hold_what_the_model_had_before_it(run: Trajectory, tmp_path: Path) -> None:
    record = chat_record(run, ExportedPictures(tmp_path))
    roles = [message["role"] for message in record["messages"]]
    assert roles[:6] == ["system", "user", "assistant", "tool", "tool", "user"] and roles[-1] == "assistant"
    shown = record["messages"][5]["content"]
    (picture,) = (part["image_url"]["url"] for part in shown if part["type"] == "image_url")
    assert cv2.imread(str(tmp_path / picture)) is not None
    assert record["messages"][2]["tool_calls"][0]["function"] == {"name": "look", "arguments": '{"at_s": 1}'}
    assert "<think>\nBoth.\n</think>" in record["messages"][2]["content"]
    assert [tool["function"]["name"] for tool in record["tools"]] == ["look", "add"]
    inside = chat_record(run, ExportedPictures(None), place="tool")["messages"]
    assert any(part["type"] == "image_url" and part["image_url"]["url"].startswith("data:image/jpeg;base64,")
               for part in inside[3]["content"])  # fmt: skip


CALLS = [
    'look\n</think>\n\n<tool_call>\n{"name": "look", "arguments": {"at_s": 1}}\n</tool_call>',
    'sum\n</think>\n\n<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>',
    "it is three\n</think>\n\n3 [f1]",
    "no more\n</think>\n\nthat was all",
]


async def test_token_rows_are_what_the_server_was_sent_and_gave(tmp_path: Path) -> None:
    rest = iter(CALLS)
    with native_server(lambda request: generated(next(rest), len(request.json["input_ids"]))) as server:
        agent = Agent(f"{server.native}#keye-tiny", [look, add], runs=tmp_path, limits=Limits(turns=9))
        first = await agent.run("what was there?")
        await first.ask("and then?")
        await agent.close()
    sent = [request.json["input_ids"] for request in server.received if request.path == "/generate"]
    run = Trajectory.read(first.run)
    rows = token_rows(run, ExportedPictures(tmp_path / "out"))
    assert [prompt for row in rows for prompt in prompts_of(row)] == sent and len(sent) == 4
    assert [drawn for row in rows for drawn in outputs_of(row)] == [spoken(text) for text in CALLS]
    assert [len(row["requests"]) for row in rows] == [3, 1], "a question is a row"
    for row in rows:
        assert len(row["ids"]) == len(row["loss_mask"]) == len(row["logprobs"])
        drawn = [token for token, learnt in zip(row["ids"], row["loss_mask"], strict=True) if learnt]
        assert drawn == [token for ids in outputs_of(row) for token in ids]
        assert all(
            (logprob < 0) == bool(learnt) for logprob, learnt in zip(row["logprobs"], row["loss_mask"], strict=True)
        )
        (image,) = row["images"]
        assert image["view"]["handle"] == "f1" and (tmp_path / "out" / image["path"]).is_file()
    document = atif_document(run, ExportedPictures(None))
    metrics = [step["metrics"] for step in document["steps"] if step["source"] == "agent"]
    assert [one["prompt_token_ids"] for one in metrics] == sent


async def test_an_edited_context_begins_another_row(tmp_path: Path) -> None:
    looks = [
        f'again\n</think>\n\n<tool_call>\n{{"name": "look", "arguments": {{"at_s": {n}}}}}\n</tool_call>'
        for n in range(9)
    ]
    rest = iter([*looks, CALLS[2]])
    with native_server(lambda request: generated(next(rest), len(request.json["input_ids"]))) as server:
        server.pages["/server_info"] = {"context_length": 1100, "internal_states": []}
        agent = Agent(f"{server.native}#keye-tiny", [look], runs=tmp_path, limits=Limits(turns=12))
        run = Trajectory.read((await agent.run("?")).run)
        await agent.close()
    sent = [request.json["input_ids"] for request in server.received if request.path == "/generate"]
    assert any(step.edits for step in run.steps)
    rows = token_rows(run, ExportedPictures(None))
    assert len(rows) > 1 and [prompt for row in rows for prompt in prompts_of(row)] == sent
    assert len(rows[0]["images"]) > 1 and all(np.isfinite(row["logprobs"]).all() for row in rows)


async def test_the_command_writes_each_form(
    run: Trajectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for form, lines in (("messages", 1), ("otel", 12)):
        assert keyeloop("export", form, run.folder, "--out", out / f"{form}.jsonl") == 0
        read = [json.loads(line) for line in (out / f"{form}.jsonl").read_text().splitlines()]
        assert len(read) == lines, form
    assert keyeloop("export", "atif", run.folder, "-o", out / "run.json", "--inline") == 0
    assert json.loads((out / "run.json").read_text())["schema_version"] == "ATIF-v1.8"
    capsys.readouterr()
    for arguments, expected in (
        (("tokens", run.folder, "-o", out / "x"), "records no tokens"),
        (("atif", run.folder, run.folder, "-o", out / "x"), "holds one run"),
        (("atif", run.folder), "name the file to write"),
    ):
        assert keyeloop("export", *arguments) == 2
        assert expected in capsys.readouterr().err
    with pytest.raises(InputError, match="records no tokens"):
        token_rows(run, ExportedPictures(None))


def test_what_is_not_installed_is_named(run: Trajectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigError, match="needs opentelemetry-exporter-otlp-proto-http: pip install"):
        send_spans([run], "http://127.0.0.1:1")
