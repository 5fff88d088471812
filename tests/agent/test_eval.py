"""Evaluations from Python: real runs of a scripted model, scored, resumed, judged and reported."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from keyeloop.agent.agent import Agent
from keyeloop.agent.evaluation.evaluate import evaluate
from keyeloop.agent.evaluation.judged import judge_agent
from keyeloop.agent.evaluation.row import read_rows
from keyeloop.model_backend.base import Request
from keyeloop.model_backend.scripted import ScriptedBackend, Spoken, call
from keyeloop.runtime.budget import Limits
from keyeloop.runtime.errors import BackendError, ConfigError, InputError
from keyeloop.runtime.prices import Prices
from keyeloop.runtime.trajectory import Trajectory
from tests.tools.moving_pictures import write_video

ROWS: list[dict[str, Any]] = [
    {"id": "seen", "question": "exact look 1", "answer": "it", "family": "f", "start_s": 0.9, "end_s": 1.1},
    {"id": "missed", "question": "exact look 3", "answer": "it", "family": "f", "start_s": 0, "end_s": 1},
    {"id": "late", "question": "exact blind", "answer": "other", "start_s": 90, "end_s": 95},
    {"id": "choice", "question": "choice", "answer": "blue", "options": ["red", "blue"]},
    {"id": "number", "question": "number", "answer": 100, "tolerance": "5%"},
    {"id": "when", "question": "interval", "start_s": 1, "end_s": 3},
    {"id": "cites", "question": "citing", "start_s": 1, "end_s": 3},
    {"id": "broken", "question": "broken", "answer": "it"},
    {"id": "spent", "question": "spent", "answer": "it"},
]


class Model:
    """Answers by the words of the question, and counts how often each is asked."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def __call__(self, request: Request) -> Spoken:
        lines = request.messages[1].text.split("\n\n")[-1].splitlines()
        question = lines[0]
        if len(request.messages) == 2:
            self.asked[question] += 1
        match question.split():
            case ["broken"]:
                raise BackendError("the server is gone")
            case ["spent"]:
                return call("clip_video", video="video-1", start_s=0, end_s=0) if request.allow_calls else " "
            case ["exact", "look", second] if len(request.messages) == 2:
                return call("clip_video", video="video-1", start_s=int(second), end_s=int(second), max_frames=1)
            case ["exact", *_]:
                return "It. [f1]"
            case ["choice"]:
                return "The answer is B: blue" if lines[-1].startswith("Answer with the letter") else "?"
            case ["number"]:
                return "90 + 6.5 = 96.5"
            case ["interval"]:
                return "from 2 s to 3 s"
            case ["citing"]:
                return "between [video-1 1.0s] and [video-1 3.0s]"
        return f"said {question}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a film of four seconds."""
    write_video(tmp_path / "film.mp4", [number * 500 for number in range(9)])
    return tmp_path


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "questions.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def agent(folder: Path, model: Model, **more: Any) -> Agent:
    return Agent(ScriptedBackend(model), limits=Limits(turns=2), runs=folder / "out" / "runs", **more)


async def test_answers_of_every_kind_are_scored_and_measured(folder: Path) -> None:
    asked, out = write(folder, ROWS), folder / "out"
    made = await evaluate(agent(folder, Model(), prices=Prices(1.0, 2.0)), asked, out=out, concurrency=2)
    rows = {row.id: row for row in made.rows}
    assert {each for each, row in rows.items() if row.right} == {"seen", "missed", "choice", "number", "when", "cites"}
    assert {each: row.looked_right for each, row in rows.items() if row.looked_right is not None} == {
        "seen": True, "missed": False, "when": False, "cites": False
    }  # fmt: skip
    assert rows["when"].tiou == 0.5 and rows["cites"].tiou == 1 and rows["seen"].tiou is None
    assert (rows["choice"].read, rows["number"].read, rows["when"].read) == ("B", "96.5", "2 to 3 s")
    assert (rows["broken"].status, rows["broken"].said, rows["broken"].right) == ("failed", "", False)
    assert (rows["spent"].status, rows["spent"].said, rows["spent"].right) == ("budget", "", False)
    assert rows["seen"].tool_calls == 1 and rows["seen"].said == "It."
    run = Trajectory.read(out / str(rows["seen"].run))
    assert run.usage.input_tokens == rows["seen"].input_tokens > 0 and run.usage.cost == rows["seen"].cost
    report = json.loads((out / "report.json").read_text())
    assert report == json.loads(json.dumps(made.report)) and read_rows(out) == list(made.rows)
    assert report["statuses"] == {"answered": 7, "failed": 1, "budget": 1, "no answer": 1}
    assert report["all"]["right"]["mean"] == pytest.approx(6 / 9) and report["all"]["right"]["n"] == 9
    assert report["kinds"]["interval"]["tiou"]["mean"] == 0.75
    assert [each["mean"] for each in report["kinds"]["interval"]["reached"].values()] == [1, 1, 0.5]
    assert report["families"].keys() == {"f"} and report["families"]["f"]["looked_right"] == 0.5
    assert [each["id"] for each in report["failures"]] == ["late", "broken", "spent"]
    assert report["all"]["input_tokens"] == pytest.approx(sum(row.input_tokens for row in made.rows) / 9)
    cached = sum(row.cached_tokens for row in made.rows) / sum(row.input_tokens for row in made.rows)
    assert report["all"]["cached_share"] == pytest.approx(cached)
    assert report["judge"] is None and report["all"]["cost"] is None, "what the failed run cost is not known"
    assert report["families"]["f"]["cost"] == pytest.approx(
        sum(rows[each].cost or 0 for each in ("seen", "missed")) / 2
    )


async def test_what_is_answered_is_not_asked_again_but_scored_anew(folder: Path) -> None:
    model, out = Model(), folder / "out"
    first = await evaluate(agent(folder, model), write(folder, ROWS[:3]), out=out, setting={"model": "m"})
    assert [row.right for row in first.rows] == [True, True, False]
    mended = [*ROWS[:2], {**ROWS[2], "answer": "it"}, ROWS[3]]
    again = await evaluate(agent(folder, model), write(folder, mended), out=out, setting={"model": "m"}, epochs=2)
    assert [row.right for row in again.rows] == [True] * 8
    assert [(row.id, row.epoch) for row in again.rows[3:6]] == [("choice", 1), ("seen", 2), ("missed", 2)]
    assert model.asked == {"exact look 1": 2, "exact look 3": 2, "exact blind": 2, "choice": 2}
    assert again.report["all"]["right"]["n"] == 4 and again.report["all"]["answers"] == 8
    with pytest.raises(InputError, match=r"answers of another model \(m, now n\)"):
        await evaluate(agent(folder, model), write(folder, ROWS[:3]), out=out, setting={"model": "n"})
    with pytest.raises(InputError, match="'late' to another question than now"):
        await evaluate(
            agent(folder, model), write(folder, [{**ROWS[2], "question": "new"}]), out=out, setting={"model": "m"}
        )
    assert sum(model.asked.values()) == 8


async def test_failed_runs_are_asked_again_only_when_that_is_wished(folder: Path) -> None:
    model, out, asked = Model(), folder / "out", write(folder, [ROWS[0], ROWS[7]])
    for retry, expected in ((False, 1), (False, 1), (True, 2)):
        made = await evaluate(agent(folder, model), asked, out=out, retry_failed=retry)
        assert model.asked["broken"] == expected and model.asked["exact look 1"] == 1
        assert made.report["statuses"] == {"answered": 1, "failed": 1}


class Judge:
    """Says right where the answer has the reference's first word; does not keep to the form where asked."""

    def __init__(self) -> None:
        self.read: list[dict[str, Any]] = []

    def __call__(self, request: Request) -> Spoken:
        assert not request.tools and request.messages[0].text.startswith("You judge")
        text = request.messages[1].text
        given = json.JSONDecoder().raw_decode(text)[0]
        self.read.append(given)
        if "never" in given["question"] or ("first" in given["question"] and len(request.messages) == 2):
            return "I would say it is right."
        if "broken" in given["question"]:
            raise BackendError("no judge today")
        right = given["reference"][0].split()[0] in given["answer"]
        return f'So: {{"verdict": "{"right" if right else "wrong"}", "why": "it {"has" if right else "lacks"} it"}}'


async def test_a_judge_reads_what_was_said_and_is_paid_apart(folder: Path) -> None:
    rows = [
        {"id": "yes", "kind": "judged", "question": "one", "answer": "said it"},
        {"id": "no", "kind": "judged", "question": "two", "answer": "other"},
        {"id": "twice", "kind": "judged", "question": "three first", "answer": "said"},
        {"id": "never", "kind": "judged", "question": "never", "answer": "said"},
        {"id": "spent", "kind": "judged", "question": "spent", "answer": "said"},
        ROWS[3],
    ]
    asked, out, model, judging = write(folder, rows), folder / "out", Model(), Judge()
    judge = judge_agent(ScriptedBackend(judging, model="the judge"), out / "judged", Prices(1.0, 1.0))
    with pytest.raises(ConfigError, match="5 of the questions are judged: name a model"):
        await evaluate(agent(folder, model), asked, out=out)
    assert not model.asked and not out.exists()
    made = await evaluate(agent(folder, model), asked, out=out, judge=judge, judge_name="j")
    found = {row.id: row for row in made.rows}
    assert [found[each].right for each in ("yes", "no", "twice", "never", "spent", "choice")] == [
        True, False, True, False, False, True
    ]  # fmt: skip
    assert found["yes"].read == "it has it" and found["no"].read == "it lacks it"
    assert [row.id for row in made.rows if not row.judged] == ["never"], "there was nothing to judge of what was spent"
    assert made.report["statuses"] == {"answered": 5, "budget": 1, "no answer": 1, "unjudged": 1}
    assert judging.read[0] == {"question": "one", "reference": ["said it"], "answer": "said one"}
    told = made.report["judge"]
    assert (told["models"], told["verdicts"], told["missing"]) == (["the judge"], 3, 1)
    records = [Trajectory.read(run) for run in (out / "judged").glob("[!.]*")]
    assert len(records) == 4 and len(judging.read) == 6, "two of them were asked twice, in one run"
    assert told["input_tokens"] == sum(run.usage.input_tokens for run in records)
    assert told["cost"] == pytest.approx(sum(run.usage.cost or 0 for run in records))
    assert all(row.cost is None for row in made.rows), "the judge's money is not the model's"

    await evaluate(agent(folder, model), asked, out=out, judge=judge, judge_name="j")
    assert Counter(each["question"] for each in judging.read)["never"] == 4 and len(judging.read) == 8
    rows[1]["answer"] = "said"
    made = await evaluate(agent(folder, model), write(folder, rows), out=out, judge=judge, judge_name="j")
    assert made.rows[1].right, "a mended reference is judged anew"
    assert Counter(each["question"] for each in judging.read)["two"] == 2
    await evaluate(agent(folder, model), asked, out=out, judge=judge, judge_name="another")
    assert Counter(each["question"] for each in judging.read)["one"] == 2
    assert sum(model.asked.values()) == 6, "and nobody else is asked"


async def test_without_tools_the_frames_are_in_the_first_message(folder: Path) -> None:
    plain = Agent(ScriptedBackend(lambda request: "it"), [], runs=folder / "out" / "runs")
    rows = [{"question": "q", "answer": "it", "start_s": 1.5, "end_s": 2.5}]
    made = await evaluate(plain, write(folder, rows), out=folder / "out", watch="whole")
    run = Trajectory.read(folder / "out" / str(made.rows[0].run))
    assert not run.start.tools and len(run.steps) == 1
    assert made.rows[0].input_tokens > 100 and {1.5, 2.0} <= {view.time_s for view in run.views().values()}
    assert made.rows[0].looked_right and made.rows[0].right and made.rows[0].tool_calls == 0
    with pytest.raises(InputError, match="to another question than now"):
        await evaluate(plain, write(folder, rows), out=folder / "out")


async def test_a_judge_that_cannot_be_asked_leaves_its_reason(folder: Path) -> None:
    rows = [{"question": "x broken y", "answer": "a", "kind": "judged"}]
    judge = judge_agent(ScriptedBackend(Judge()), folder / "out" / "judged")
    made = await evaluate(agent(folder, Model()), write(folder, rows), out=folder / "out", judge=judge)
    (row,) = made.rows
    assert (row.right, row.judged, row.status, row.read) == (False, False, "answered", "BackendError: no judge today")
    assert made.report["statuses"] == {"answered": 1, "unjudged": 1}


async def test_epochs_are_averaged_before_errors(folder: Path) -> None:
    """One question is right every other time: with epochs averaged that is one value of a half, not two answers."""

    def sometimes(task: Any) -> Agent:
        epoch = int(task.id.rpartition("#")[2])
        said = "it" if epoch == 1 or "b" in task.id else "no"
        return Agent(ScriptedBackend([said]), [], runs=folder / "out" / "runs")

    rows = [{"id": each, "question": "q " + each, "answer": "it", "video": None} for each in "ab"]
    made = await evaluate(sometimes, write(folder, rows), out=folder / "out", epochs=2)
    right = made.report["all"]["right"]
    assert (right["mean"], right["n"], right["clusters"]) == (0.75, 2, 2)
    assert right["error"] == pytest.approx(0.25 / 2**0.5)


async def test_rows_of_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no evaluation in"):
        read_rows(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(InputError, match="holds no rows"):
        read_rows(tmp_path)
