"""Typed answers: what is told, what is read, one repair, and a typed end."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from keyeloop.agent.agent import Agent
from keyeloop.agent.answer_form import AnswerForm
from keyeloop.agent.task import Task
from keyeloop.model_backend.scripted import Script, ScriptedBackend, call
from keyeloop.runtime.budget import Limits
from keyeloop.runtime.errors import ConfigError
from keyeloop.runtime.events import Noticed
from keyeloop.runtime.journal import read_journal
from keyeloop.runtime.trajectory import Trajectory
from tests.agent.small_tools import add, look


class Sign(BaseModel):
    """What stood on a sign."""

    number: int = Field(ge=0)
    where: str
    colours: list[str] = []


@dataclass
class Span:
    start_s: float
    end_s: float


class Side(enum.Enum):
    LEFT = "left"
    RIGHT = "right"


SIGN = '{"number": 821, "where": "in the middle [f1 350,230,650,490]"}'


@pytest.mark.parametrize(
    ("wanted", "text", "value"),
    [
        (Sign, SIGN, Sign(number=821, where="in the middle [f1 350,230,650,490]")),
        (Sign, f"```json\n{SIGN}\n```", Sign(number=821, where="in the middle [f1 350,230,650,490]")),
        (Sign, f"Here it is: {SIGN}\nI hope that helps.", Sign(number=821, where="in the middle [f1 350,230,650,490]")),
        (Sign, '{"number": 7, "where": "left"} [f1]', Sign(number=7, where="left")),
        (Span, '{"start_s": 1, "end_s": 2.5}', Span(1.0, 2.5)),
        (int, "417", 417),
        (int, "417 [f1 310,200,640,460]", 417),
        (float, "-3.5 [f1; z2]", -3.5),
        (bool, "true", True),
        (bool, "Yes [f1]", True),
        (Literal["red", "blue"], "red [f1]", "red"),
        (Literal["red", "blue"], '"blue"', "blue"),
        (Side, "left", Side.LEFT),
        (str, "on the left [f1]", "on the left [f1]"),
        (str, "42", "42"),
        (list[int], "[1, 2, 3] [f1]", [1, 2, 3]),
        (list[str], 'They are ["a", "b [f2]"].', ["a", "b [f2]"]),
        (int | None, "null", None),
        (dict[str, float], '{"a": 1}', {"a": 1.0}),
    ],
)
def test_what_is_read(wanted: Any, text: str, value: Any) -> None:
    reading = AnswerForm(wanted).read(text)
    assert reading.problem is None and reading.value == value and type(reading.value) is type(value)


@pytest.mark.parametrize(
    ("wanted", "text", "problem"),
    [
        (Sign, "it was 821", "it is not JSON"),
        (
            Sign,
            '{"number": "many"}',
            "number: Input should be a valid integer, unable to parse string as an integer, got",
        ),
        (Sign, '{"number": 1}', "where: Field required"),
        (
            Sign,
            '{"number": -1, "where": 3, "colours": 4}',
            "number: Input should be greater than or equal to 0, got -1; w",
        ),
        (
            int,
            "about forty",
            "Input should be a valid integer, unable to parse string as an integer, got 'about forty'",
        ),
        (Literal["red", "blue"], "green", "Input should be 'red' or 'blue', got 'green'"),
        (list[int], '["a", "b", "c", "d", "e"]', "and 2 more"),
        (Sign, '{"number": 1, "where": ' + "[" * 200 + "]" * 200 + "}", "..."),
    ],
)
def test_what_is_wrong(wanted: Any, text: str, problem: str) -> None:
    reading = AnswerForm(wanted).read(text)
    assert reading.value is None and reading.problem is not None
    assert problem in reading.problem and len(reading.problem) < 400 and "http" not in reading.problem


@pytest.mark.parametrize("wanted", [object(), lambda: 3, Path("x"), ScriptedBackend, 7])
def test_what_can_be_no_answer(wanted: Any) -> None:
    with pytest.raises(ConfigError, match="cannot be the type of an answer"):
        AnswerForm(wanted)


async def ask(runs: Path, replies: list[Script], wanted: Any, **options: Any) -> tuple[Any, ScriptedBackend]:
    backend = ScriptedBackend(replies)
    answer = await Agent(backend, [add, look], runs=runs, **options).run("what number?", answer=wanted)
    return answer, backend


async def test_the_schema_stands_behind_the_question_and_nowhere_else(tmp_path: Path) -> None:
    answer, typed = await ask(tmp_path, [SIGN], Sign)
    _, free = await ask(tmp_path, ["x"], None)
    assert answer.value == Sign(number=821, where="in the middle [f1 350,230,650,490]") and answer.status == "answered"
    (system, task), (plain_system, plain_task) = typed.requests[0].messages, free.requests[0].messages
    assert system == plain_system and typed.requests[0].tools == free.requests[0].tools
    assert plain_task.text == "what number?" and task.text.startswith(
        "what number?\n\nWhen you are done, answer with JSON"
    )
    told = json.loads(task.text.splitlines()[-2])
    assert told["required"] == ["number", "where"] and "title" not in json.dumps(told)
    run = Trajectory.read(answer.run)
    assert run.question == "what number?" and run.start.config["answer_schema"] == told
    assert "answer_schema" not in free.requests[0].messages[0].text


async def test_citations_in_strings_resolve(tmp_path: Path) -> None:
    answer, _ = await ask(tmp_path, [call("look", at_s=3), SIGN], Sign)
    (citation,) = answer.citations
    assert citation.seen and citation.time_s == 3.0 and citation.region is not None
    assert answer.to_json()["value"] == json.loads(SIGN) | {"colours": []}


async def test_a_wrong_answer_is_mended_once(tmp_path: Path) -> None:
    answer, backend = await ask(tmp_path, ["about 821", call("add", a=800, b=21), SIGN], Sign)
    assert (answer.status, answer.reason, answer.value.number) == ("answered", "", 821)
    assert backend.requests[1].messages[-1].text == (
        "Error: the answer does not fit: it is not JSON. Give it again, as JSON that fits the schema."
    )
    assert backend.requests[1].messages[:2] == backend.requests[0].messages
    assert [event.code for event in read_journal(answer.run) if isinstance(event, Noticed)] == ["answer_form"]


async def test_a_second_wrong_answer_is_a_typed_end(tmp_path: Path) -> None:
    wrong = '{"number": "many", "where": "there [f1]"}'
    answer, backend = await ask(tmp_path, [call("look", at_s=3), "so many", wrong], Sign)
    assert (answer.status, answer.value, answer.text, len(backend.requests)) == ("invalid", None, wrong, 3)
    assert answer.reason.startswith("the answer does not fit: number: Input should be a valid integer")
    assert answer.citations[0].seen and answer.to_json()["value"] is None
    assert Trajectory.read(answer.run).status == "invalid"


async def test_an_answer_that_was_forced_is_read_too(tmp_path: Path) -> None:
    answer, _ = await ask(tmp_path, [call("add", a=1, b=1), "2"], int, limits=Limits(turns=1))
    assert (answer.status, answer.value) == ("budget", 2)
    answer, backend = await ask(tmp_path, [call("add", a=1, b=1), "two"], int, limits=Limits(turns=1))
    assert (answer.status, answer.value, len(backend.requests)) == ("budget", None, 2)
    assert answer.reason.startswith("the limit of turns is reached (1); the answer does not fit: Input should be")


async def test_a_follow_up_has_a_type_of_its_own(tmp_path: Path) -> None:
    first, backend = await ask(tmp_path, [SIGN, "red", "as before", "no colour", "none"], Sign)
    second = await first.ask("which colour?", answer=Literal["red", "blue"])
    third = await first.ask("and then?")
    assert (second.value, third.value, third.form) == ("red", None, None)
    assert backend.requests[2].messages[: len(backend.requests[1].messages)] == backend.requests[1].messages
    assert backend.requests[2].messages[-1].text == "and then?"
    assert (await first.ask("which colour?", answer=Literal["red", "blue"])).status == "invalid"


async def test_many_tasks_have_types_of_their_own(tmp_path: Path) -> None:
    agent = Agent(ScriptedBackend(lambda request: "7"), [], runs=tmp_path)
    outcomes = await agent.run_many([Task("a", answer=int), Task("b"), Task("c", answer=list[int])])
    assert [outcome.answer.value for outcome in outcomes if outcome.answer] == [7, None, None]
    assert [outcome.status for outcome in outcomes] == ["answered", "answered", "invalid"]


async def test_a_type_that_cannot_be_told_fails_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        await ask(tmp_path, ["x"], object())
    assert not list(tmp_path.iterdir())
