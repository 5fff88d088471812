"""Rows added up: shares that are right with their errors, and what answering took, by kind and by family."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from keyeloop.agent.evaluation.interval import THRESHOLDS
from keyeloop.agent.evaluation.row import Row
from keyeloop.agent.evaluation.standard_error import Estimate, estimate

FORMAT = 1
"""Version of the report's form."""
UNJUDGED = "unjudged"
"""Counted beside the statuses of runs: answers whose verdict is missing."""
NO_ANSWER = "no answer"
"""Counted beside them too: runs that ended on their own terms without a word."""


@dataclass(frozen=True)
class Summary:
    """Some rows of an evaluation together; means are over questions, whose epochs were averaged first."""

    right: Estimate
    """Share of right answers."""
    answers: int
    """Runs: questions times epochs."""
    looked_right: float | None
    """Share of the runs that were shown a frame of where the answer is, of those for which that is known."""
    looked_known: int
    input_tokens: float
    """Mean of a run, as those below."""
    output_tokens: float
    cached_share: float | None
    """Of all input tokens together."""
    cost: float | None
    """None where it is unknown for a run."""
    seconds: float
    tool_calls: float
    tiou: Estimate | None = None
    """For intervals."""
    reached: Mapping[str, Estimate] | None = None
    """For intervals: share of the answers that reach each threshold of tIoU."""


def summarise(rows: Sequence[Row]) -> Summary:
    """Add up rows; ValueError where there are none."""
    looked = [row.looked_right for row in rows if row.looked_right is not None]
    costs = [row.cost for row in rows]
    tokens = sum(row.input_tokens for row in rows)
    measured = [row for row in rows if row.tiou is not None]
    return Summary(
        right=estimate_of(rows, lambda row: float(row.right)),
        answers=len(rows),
        looked_right=sum(looked) / len(looked) if looked else None,
        looked_known=len(looked),
        input_tokens=tokens / len(rows),
        output_tokens=sum(row.output_tokens for row in rows) / len(rows),
        cached_share=sum(row.cached_tokens for row in rows) / tokens if tokens else None,
        cost=None if None in costs else sum(cost or 0.0 for cost in costs) / len(rows),
        seconds=sum(row.seconds for row in rows) / len(rows),
        tool_calls=sum(row.tool_calls for row in rows) / len(rows),
        tiou=estimate_of(measured, lambda row: row.tiou or 0.0) if measured else None,
        reached={
            f"{at:g}": estimate_of(measured, lambda row, at=at: float((row.tiou or 0.0) >= at))  # type: ignore[misc]
            for at in THRESHOLDS
        }
        if measured
        else None,
    )


def estimate_of(rows: Sequence[Row], value: Callable[[Row], float]) -> Estimate:
    """The mean of a value over questions, epochs averaged first, with the error clustered by video."""
    means, groups = question_means(rows, value)
    return estimate(list(means.values()), [groups[each] for each in means])


def question_means(rows: Sequence[Row], value: Callable[[Row], float]) -> tuple[dict[str, float], dict[str, str]]:
    """A value's mean by question, and each question's group."""
    found: dict[str, list[float]] = {}
    groups: dict[str, str] = {}
    for row in rows:
        found.setdefault(row.id, []).append(value(row))
        groups[row.id] = row.group
    return {each: sum(values) / len(values) for each, values in found.items()}, groups


def grouped(rows: Sequence[Row], name: str) -> dict[str, list[Row]]:
    """Rows by what they have under ``name``, in order of appearance."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(getattr(row, name), []).append(row)
    return found


def statuses(rows: Sequence[Row]) -> dict[str, int]:
    """How the runs ended, and how many answers are missing or without a verdict though they did end well."""
    counts = Counter(row.status for row in rows)
    counts[NO_ANSWER] = sum(not row.said and row.status not in ("failed", "interrupted") for row in rows)
    counts[UNJUDGED] = sum(not row.judged for row in rows)
    return {name: count for name, count in counts.items() if count}


def report(rows: Sequence[Row], setting: Mapping[str, Any], judge: Mapping[str, Any] | None) -> dict[str, Any]:
    """The whole report, as it is saved in ``report.json``; ``judge`` is what judging took, apart from the rest."""
    return {
        "format": FORMAT,
        "setting": dict(setting),
        "epochs": max((row.epoch for row in rows), default=0),
        "statuses": statuses(rows),
        "all": asdict(summarise(rows)),
        "kinds": {name: asdict(summarise(some)) for name, some in grouped(rows, "kind").items()},
        "families": {name: asdict(summarise(some)) for name, some in grouped(rows, "family").items() if name},
        "judge": None if judge is None else dict(judge),
        "failures": [
            {
                name: getattr(row, name)
                for name in ("id", "epoch", "question", "wanted", "said", "status", "reason", "run")
            }
            for row in rows
            if not row.right
        ],
    }
