"""JSON schemas as what an answer has to be: in Python, on the command line, in a batch's lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from keyeloop.agent import models
from keyeloop.agent.agent import Agent
from keyeloop.agent.answer_form import AnswerForm
from keyeloop.agent.batch.task_file import BadLines, read_tasks
from keyeloop.agent.cli import main
from keyeloop.model_backend.base import Request
from keyeloop.model_backend.scripted import ScriptedBackend
from keyeloop.runtime.errors import ConfigError

SIGN: dict[str, Any] = {
    "type": "object",
    "properties": {"number": {"type": "integer", "minimum": 0}, "where": {"$ref": "#/$defs/place"}},
    "required": ["number"],
    "additionalProperties": False,
    "$defs": {"place": {"enum": ["left", "right"]}},
}
COUNT = {"type": "integer"}


def keyeloop(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([*map(str, arguments)])
    return int(left.value.code or 0)


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        (SIGN, 'It is {"number": 821, "where": "left"} [f1]', {"number": 821, "where": "left"}),
        (COUNT, "417 [f1 310,200,640,460]", 417),
        ({"type": "string"}, "red", "red"),
        ({"enum": ["yes", "no"]}, "yes [f1]", "yes"),
        ({"type": "array", "items": {"type": "number"}}, "```json\n[1, 2.5]\n```", [1, 2.5]),
        ({}, "anything", "anything"),
    ],
)
def test_what_is_read(schema: dict[str, Any], text: str, value: Any) -> None:
    read = AnswerForm(schema).read(text)
    assert (read.value, read.problem) == (value, None)


@pytest.mark.parametrize(
    ("schema", "text", "problem"),
    [
        (
            SIGN,
            '{"number": "many", "where": "up"}',
            "number: 'many' is not of type 'integer'; where: 'up' is",
        ),
        (SIGN, '{"number": -1, "colour": 1}', "Additional properties are not allowed"),
        (SIGN, "there is none", "it is not JSON"),
        (SIGN, '{"number": NaN}', "it is not JSON"),
        (COUNT, "many", "'many' is not of type 'integer'"),
        (COUNT, json.dumps(["x" * 500]), 'type "integer" does not hold, got'),
        (SIGN, "[" * 100_000, "it is not JSON"),
    ],
)
def test_what_is_wrong(schema: dict[str, Any], text: str, problem: str) -> None:
    said = AnswerForm(schema).read(text).problem
    assert said is not None and problem in said and len(said) < 400


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "integr"}, "no JSON schema: 'integr' is not valid"),
        ({"pattern": "("}, "no JSON schema"),
        ({"$ref": "http://127.0.0.1:9/other.json"}, "refers to 'http://127.0.0.1:9/other.json', which is not in it"),
        ({"properties": {"a": {"$ref": "#/$defs/none"}}}, "none', which is not in it"),
        ({"$ref": "#"}, "refers to itself without end"),
        ({"enum": [{1, 2}]}, "no JSON schema"),
    ],
)
def test_what_is_no_schema(schema: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as error:
        AnswerForm(schema)
    assert problem in str(error.value)


async def test_a_schema_in_python_is_told_mended_and_recorded(tmp_path: Path) -> None:
    model = ScriptedBackend(["many", '{"number": 7}'])
    answer = await Agent(model, [], runs=tmp_path).run("how many?", answer=SIGN)
    assert answer.value == {"number": 7} and answer.fits
    assert json.dumps(SIGN) in model.requests[0].messages[1].text
    planned = await Agent(model, [], runs=tmp_path).plan("how many?", answer=SIGN)
    assert planned.input_tokens == model.count_tokens(model.requests[0]).input_tokens


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("sign.json").write_text(json.dumps(SIGN))
    Path("count.json").write_text("\ufeff" + json.dumps(COUNT))
    return tmp_path


def test_on_the_command_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ScriptedBackend(['{"number": 821}', "417", "none"])
    first = Agent(model).run_sync("what?", answer=SIGN)
    first.ask_sync("how much?", answer=COUNT)
    replay = ("--model", f"replay:{first.run}", "--json")
    assert keyeloop("run", "what?", *replay, "--answer-schema", "sign.json", "--runs", "typed") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["value"] == {"number": 821}
    assert keyeloop("ask", told["run"], "how much?", *replay, "--answer-schema", "count.json") == 0
    assert json.loads(capsys.readouterr().out)["value"] == 417


def test_an_answer_that_does_not_fit_exits_with_1(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ScriptedBackend(["none", "none at all"])
    run = Agent(model).run_sync("what?", answer=SIGN).run
    replay = ("--model", f"replay:{run}", "--json", "--runs", "typed")
    assert keyeloop("run", "what?", *replay, "--answer-schema", "sign.json") == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["value"], told["status"]) == (None, "invalid") and "the answer does not fit" in told["reason"]


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        (None, "the answer schema odd.json cannot be read: No such file"),
        ("{", "the answer schema odd.json is no JSON"),
        ("[]", "the answer schema odd.json is no object"),
        ('{"type": 3}', "odd.json: this is no JSON schema"),
    ],
)
def test_a_wrong_file_is_one_line(
    place: Path, written: str | None, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if written is not None:
        Path("odd.json").write_text(written)
    assert keyeloop("run", "what?", "--answer-schema", "odd.json") == 2
    assert problem in capsys.readouterr().err


def test_lines_of_a_batch_have_their_own(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: Request) -> str:
        return {"how many": "7", "which sign": '{"number": 7}', "what": "seven"}[request.messages[1].text.split("?")[0]]

    run = Agent(ScriptedBackend(["x"]), [], runs="recorded").run_sync("?").run
    monkeypatch.setenv("KEYELOOP_MODEL", f"replay:{run}")
    monkeypatch.setattr(models, "load_model", lambda model: ScriptedBackend(answer))
    lines = [
        {"id": "a", "task": "how many?", "answer_schema": COUNT},
        {"id": "b", "task": "which sign?", "answer_schema": "sign.json"},
        {"id": "c", "task": "what?"},
    ]
    Path("tasks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert keyeloop("batch", "tasks.jsonl") == 0
    found = {each["id"]: each for each in map(json.loads, Path("tasks.results.jsonl").read_text().splitlines())}
    assert (found["a"]["value"], found["b"]["value"], "value" in found["c"]) == (7, {"number": 7}, False)
    assert found["b"]["asked"]["answer_schema"] == SIGN
    Path("sign.json").write_text(json.dumps(COUNT))
    assert keyeloop("batch", "tasks.jsonl") == 2, "another schema is another task"


def test_wrong_schemas_of_a_batch_are_told_by_line(place: Path) -> None:
    lines = [{"task": "a", "answer_schema": {"type": 1}}, {"task": "b", "answer_schema": "no.json"}]
    Path("tasks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(BadLines) as bad:
        read_tasks(Path("tasks.jsonl"))
    first, second = bad.value.problems
    assert (
        first.startswith("tasks.jsonl:1: answer_schema: this is no JSON schema") and "no.json cannot be read" in second
    )
