"""An evaluation: every question asked as a task of a batch, written down as it is answered, scored at the end."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from keyeloop.agent.agent import Agent
from keyeloop.agent.batch.many import TaskOutcome, stream_many
from keyeloop.agent.batch.result_file import FAILED, Record, ResultFile
from keyeloop.agent.evaluation.judged import asked_of, judge_all, words_to_judge
from keyeloop.agent.evaluation.question import Question
from keyeloop.agent.evaluation.question_file import read_questions
from keyeloop.agent.evaluation.row import Row, make_row, measure, run_within, write_rows
from keyeloop.agent.evaluation.score import Said
from keyeloop.agent.evaluation.summary import report
from keyeloop.agent.inputs import PathLike
from keyeloop.agent.task import Task
from keyeloop.agent.watching import Watch
from keyeloop.runtime.content import Usage
from keyeloop.runtime.errors import ConfigError, InputError, JournalError

ANSWERS, VERDICTS, REPORT = "answers.jsonl", "verdicts.jsonl", "report.json"


class Watcher(Protocol):
    """Is told how an evaluation goes on."""

    def begin(self, what: str, total: int, done: int) -> None:
        """``answers`` or ``verdicts`` are next: ``done`` of the ``total`` are there already."""

    def on(self, record: Record) -> None:
        """One more was written down."""


@dataclass(frozen=True)
class Evaluation:
    """Every answer with its score, and the report on them."""

    folder: Path
    rows: tuple[Row, ...]
    report: dict[str, Any]
    """As in ``report.json``."""


@dataclass(frozen=True)
class Asking:
    """A question in one epoch."""

    question: Question
    epoch: int

    @property
    def id(self) -> str:
        """Of the task: the question's own, and the epoch."""
        return f"{self.question.id}#{self.epoch}"


async def evaluate(
    agent: Agent | Callable[[Task], Agent],
    questions: PathLike | Sequence[PathLike | Question],
    *,
    out: PathLike,
    videos: PathLike | None = None,
    epochs: int = 1,
    concurrency: int = 8,
    watch: Watch | None = None,
    judge: Agent | None = None,
    judge_name: str = "",
    setting: Mapping[str, Any] | None = None,
    retry_failed: bool = False,
    watcher: Watcher | None = None,
) -> Evaluation:
    """Ask every question ``epochs`` times, score the answers by kind, and leave a report in the folder ``out``.

    ``questions`` are files or what :func:`read_questions` read of them; ``agent`` may be a function that names the
    agent of a task, whose id ends in ``#`` and the epoch. What is in ``out`` is not asked again; answers are scored
    anew each time, so that a mended reference needs no model. ``setting`` says who is asked and how: it is part of the
    report, and answers under another one are refused. ``watch`` shows frames in the first message, as in
    :meth:`Agent.run`, of every question in place of its own wish. ``judge`` (see :func:`judge_agent`) reads answers of
    kind ``judged``; verdicts of a judge of another ``judge_name`` are made anew.

    A run that fails is a wrong answer whose status is counted, and does not disturb the others. Raises InputError for
    questions that cannot be used and for an ``out`` of something else, ConfigError for judged questions without a
    judge, before anything is asked.
    """
    listed = _listed(questions, videos)
    chosen, folder, told = json.loads(json.dumps(dict(setting or {}))), Path(out), watcher or _Silent()
    if epochs < 1:
        raise ConfigError(f"epochs is {epochs}: every question must be asked once at least")
    if judge is None and (judged := sum(question.kind == "judged" for question in listed)):
        raise ConfigError(f"{judged} of the questions are judged: name a model that judges (judge, --judge)")
    shown = listed if watch is None else [_watching(question, watch) for question in listed]
    askings = [Asking(question, epoch) for epoch in range(1, epochs + 1) for question in shown]
    with (
        ResultFile(folder / ANSWERS, FAILED if retry_failed else ()) as answers,
        ResultFile(folder / VERDICTS) as verdicts,
    ):
        left = _left(askings, answers, chosen)
        told.begin("answers", len(askings), len(askings) - len(left))
        await _ask(agent, left, answers, folder, chosen, concurrency, told)
        wanted = _to_judge(askings, answers)
        if judge is not None and wanted:
            await _judge(judge, judge_name, wanted, verdicts, concurrency, told)
        kept = {each: verdicts.records.get(each) for each in wanted}
        rows = [make_row(each.question, each.epoch, answers.records[each.id], kept.get(each.id)) for each in askings]
    made = report(rows, chosen, _judging(list(filter(None, kept.values()))) if wanted else None)
    write_rows(folder, rows)
    _write(folder / REPORT, made)
    return Evaluation(folder, tuple(rows), made)


def _listed(questions: PathLike | Sequence[PathLike | Question], videos: PathLike | None) -> list[Question]:
    every = [questions] if isinstance(questions, str | os.PathLike) else list(questions)
    ready = [each for each in every if isinstance(each, Question)]
    if len(ready) == len(every) and ready:
        return ready
    if ready:
        raise InputError("questions are files, or questions that were read: not both")
    files = [Path(each) for each in every if isinstance(each, str | os.PathLike)]
    return read_questions(files, None if videos is None else Path(videos))


def _watching(question: Question, watch: Watch) -> Question:
    """The question, asked with frames in its first message."""
    return replace(question, task=replace(question.task, watch=watch), asked={**question.asked, "watch": watch})


def _left(askings: Sequence[Asking], answers: ResultFile, setting: Mapping[str, Any]) -> list[Asking]:
    """Questions without an answer. InputError where an answer is of another question or setting."""
    for each in askings:
        record = answers.records.get(each.id)
        if record is None:
            continue
        was = record.get("setting", {})
        if other := sorted(name for name in {*was, *setting} if was.get(name) != setting.get(name)):
            raise InputError(
                f"{answers.path} has answers of another {other[0]} ({was.get(other[0])}, now "
                f"{setting.get(other[0])}): name another --out"
            )
        if record.get("asked") != each.question.asked:
            raise InputError(
                f"{answers.path} has an answer of {each.question.id!r} to another question than now: give changed "
                "questions another id, or name another --out"
            )
    return [each for each in askings if each.id not in answers.records]


async def _ask(
    agent: Agent | Callable[[Task], Agent],
    left: Sequence[Asking],
    answers: ResultFile,
    folder: Path,
    setting: Mapping[str, Any],
    concurrency: int,
    told: Watcher,
) -> None:
    def choose(task: Task) -> Agent:
        return agent if isinstance(agent, Agent) else agent(task)

    tasks = [replace(each.question.task, id=each.id) for each in left]
    async with aclosing(stream_many(choose, tasks, concurrency)) as outcomes:
        async for outcome in outcomes:
            record = {
                **outcome.to_json(),
                **await asyncio.to_thread(_measured, outcome),
                "run": None if outcome.run is None else run_within(folder, outcome.run),
                "setting": dict(setting),
                "asked": left[outcome.index].question.asked,
            }
            answers.append(record)
            told.on(record)


def _measured(outcome: TaskOutcome) -> dict[str, Any]:
    if outcome.run is None:
        return {}
    try:
        return measure(outcome.run)
    except JournalError:  # cut off before its first line, as on a full disk
        return {}


def _to_judge(askings: Sequence[Asking], answers: ResultFile) -> dict[str, str]:
    """Judged questions that have an answer, as tasks of the judge."""
    found = {}
    for each in askings:
        record, question = answers.records[each.id], each.question
        said = Said(str(record.get("text", ""))).plain
        if question.kind == "judged" and record["status"] not in FAILED and said:
            found[each.id] = words_to_judge(question.text, question.wanted, said)
    return found


async def _judge(
    judge: Agent, name: str, wanted: Mapping[str, str], verdicts: ResultFile, concurrency: int, told: Watcher
) -> None:
    def judged(each: str, text: str) -> bool:
        record = verdicts.records.get(each, {})
        return record.get("asked") == asked_of(name, text) and record.get("verdict") is not None

    left = {each: text for each, text in wanted.items() if not judged(each, text)}
    told.begin("verdicts", len(wanted), len(wanted) - len(left))
    await judge_all(judge, name, left, verdicts, concurrency, told.on)


def _judging(verdicts: Sequence[Record]) -> dict[str, Any]:
    """What the verdicts took that count."""
    used = [Usage(**record["usage"]) for record in verdicts]
    total = sum(used, Usage())
    return {
        "models": sorted({record["model"] for record in verdicts if record["model"]}),
        "verdicts": sum(record["verdict"] is not None for record in verdicts),
        "missing": sum(record["verdict"] is None for record in verdicts),
        "input_tokens": total.input_tokens,
        "output_tokens": total.output_tokens,
        "cost": total.cost,
        "seconds": round(sum(record["seconds"] for record in verdicts), 3),
    }


def _write(path: Path, value: object) -> None:
    beside = path.with_name(f".{path.name}.new")
    beside.write_bytes((json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode("utf-8", "replace"))
    beside.replace(path)


class _Silent:
    def begin(self, what: str, total: int, done: int) -> None:
        pass

    def on(self, record: Record) -> None:
        pass
