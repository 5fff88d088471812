"""One answer of an evaluation, scored: a line of its ``rows.jsonl``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from keyeloop.agent.batch.result_file import FAILED, Record
from keyeloop.agent.evaluation.kinds import score
from keyeloop.agent.evaluation.question import Question
from keyeloop.agent.evaluation.score import Said, Score
from keyeloop.runtime.citations import SEEN_WITHIN_S
from keyeloop.runtime.errors import InputError
from keyeloop.runtime.trajectory import Trajectory

ROWS = "rows.jsonl"


@dataclass(frozen=True)
class Row:
    """A question as it was answered in one epoch."""

    id: str
    """Of the question."""
    epoch: int
    """1, 2, ..."""
    kind: str
    family: str
    group: str
    """Questions of one group are not independent: they share a video."""
    question: str
    wanted: str
    said: str
    """The answer without its citations; empty where there is none."""
    read: str
    """What was understood of it: a letter, a number, an interval, the judge's reason."""
    right: bool
    tiou: float | None
    """For intervals."""
    judged: bool
    """False where a verdict is missing; the answer then counts as wrong."""
    status: str
    """Of the run, as in its record."""
    reason: str
    looked_right: bool | None
    """Whether a frame was shown of where the answer is to be seen; None where that is not known."""
    tool_calls: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost: float | None
    seconds: float
    run: str | None
    """The run's folder, relative to that of the evaluation where it lies in it."""

    @property
    def answered(self) -> bool:
        """Whether there is an answer at all."""
        return self.status not in FAILED and bool(self.said)


def measure(run: Path) -> dict[str, Any]:
    """What a run's record tells beyond its outcome: calls, and where it looked in its first video."""
    trajectory = Trajectory.read(run)
    video = next((source for source in trajectory.start.inputs if source.kind == "video"), None)
    shown = {
        round(view.time_s, 3)
        for view in trajectory.views().values()
        if video is not None and view.source == video.name and view.time_s is not None
    }
    return {
        "tool_calls": trajectory.tool_calls,
        "video": None if video is None else {"name": video.name, "duration_s": video.duration_s},
        "shown_s": sorted(shown),
    }


def make_row(question: Question, epoch: int, record: Record, verdict: Record | None) -> Row:
    """Score what was recorded of an answer; a run without an answer is wrong."""
    said = _said(record)
    usage = record.get("usage", {})
    worth, judged = _score(question, said, verdict)
    lost = record["status"] in FAILED or not said.plain
    return Row(
        id=question.id,
        epoch=epoch,
        kind=question.kind,
        family=question.family,
        group=question.group,
        question=question.text,
        wanted=question.wanted_words,
        said="" if record["status"] in FAILED else said.plain,
        read=worth.read,
        right=worth.right and not lost,
        tiou=worth.tiou if not lost or worth.tiou is None else 0.0,
        judged=judged or lost,
        status=str(record["status"]),
        reason=str(record.get("reason", "")),
        looked_right=_looked_right(question, record),
        tool_calls=int(record.get("tool_calls", 0)),
        input_tokens=int(usage.get("input_tokens", 0)),
        cached_tokens=int(usage.get("cached_tokens", 0)),
        output_tokens=int(usage.get("output_tokens", 0)),
        cost=usage.get("cost"),
        seconds=float(record.get("seconds", 0.0)),
        run=record.get("run"),
    )


def write_rows(folder: Path, rows: Iterable[Row]) -> None:
    """Write ``rows.jsonl`` in one go, in the place of an older one."""
    beside = folder / f".{ROWS}.new"
    lines = (json.dumps(asdict(row), ensure_ascii=False) for row in rows)
    beside.write_bytes("".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))
    beside.replace(folder / ROWS)


def read_rows(folder: Path) -> list[Row]:
    """The rows of an evaluation; InputError where there are none that can be read."""
    path = folder / ROWS if folder.is_dir() else folder
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        raise InputError(f"no evaluation in {folder}: name the folder that holds {ROWS}") from None
    adapter = TypeAdapter(Row)
    try:
        return [adapter.validate_json(line) for line in lines if line.strip()]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InputError(f"{path} holds no rows of an evaluation: {first['loc']}: {first['msg']}") from None


def run_within(folder: Path, run: Path) -> str:
    """A run's folder as a row names it, so that an evaluation can be moved."""
    whole, root = run.resolve(), folder.resolve()
    return os.fspath(whole.relative_to(root) if whole.is_relative_to(root) else whole)


def _said(record: Record) -> Said:
    video = (record.get("video") or {}).get("name", "video-1")
    cited = (each for each in record.get("citations") or () if each["source"] == video)
    return Said(str(record.get("text", "")), tuple(each["time_s"] for each in cited if each["time_s"] is not None))


def _score(question: Question, said: Said, verdict: Record | None) -> tuple[Score, bool]:
    if question.kind != "judged":
        return score(question, said), True
    if verdict is None or verdict.get("verdict") is None:
        return Score(False, "" if verdict is None else str(verdict.get("reason", ""))), False
    return Score(verdict["verdict"] == "right", str(verdict["why"])), True


def _looked_right(question: Question, record: Record) -> bool | None:
    """Whether a shown frame lies where the answer is; a moment without length counts half a second around it."""
    interval, video = question.interval, record.get("video")
    if interval is None or video is None or (video["duration_s"] is not None and interval[0] >= video["duration_s"]):
        return None
    slack_s = SEEN_WITHIN_S if interval[0] == interval[1] else 0.0
    return any(interval[0] - slack_s <= at <= interval[1] + slack_s for at in record["shown_s"])
