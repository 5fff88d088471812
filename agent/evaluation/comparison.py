"""Two evaluations of the same questions: paired differences, and the questions whose answers changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from keyeloop.agent.evaluation.row import Row, read_rows
from keyeloop.agent.evaluation.standard_error import Estimate, estimate
from keyeloop.agent.evaluation.summary import grouped, question_means
from keyeloop.runtime.errors import InputError


@dataclass(frozen=True)
class Difference:
    """How the second of two evaluations differs from the first on the questions of both."""

    first: float
    """Share of right answers."""
    second: float
    difference: Estimate
    """Of the second from the first, question by question; its error is that of the paired difference."""
    better: int
    """Questions that went better in the second."""
    worse: int
    tiou: Estimate | None = None
    """For intervals: the paired difference of tIoU."""


@dataclass(frozen=True)
class Changed:
    """A question that one evaluation has more often right than the other."""

    id: str
    kind: str
    question: str
    wanted: str
    first: float
    """Share of its answers that are right."""
    second: float
    first_said: str
    second_said: str
    first_run: str | None
    second_run: str | None


@dataclass(frozen=True)
class Comparison:
    """Two evaluations side by side; only questions that both have, with the same answer wanted, are compared."""

    only_first: int
    only_second: int
    unlike: int
    """Questions of the same id that are not the same, or want other answers."""
    all: Difference
    kinds: dict[str, Difference]
    families: dict[str, Difference]
    changed: tuple[Changed, ...]

    def to_json(self) -> dict[str, Any]:
        """For a program."""
        return asdict(self)


def compare(first: Path, second: Path) -> Comparison:
    """Compare two folders of evaluations. InputError where one holds none, or where they share no question."""
    old, new = (grouped(read_rows(folder), "id") for folder in (first, second))
    shared = [each for each in old if each in new]
    same = [each for each in shared if _asked(old[each][0]) == _asked(new[each][0])]
    if not same:
        raise InputError(f"{first} and {second} have no question in common: compare evaluations of the same questions")
    pairs = {each: (old[each], new[each]) for each in same}
    return Comparison(
        only_first=len(old) - len(shared),
        only_second=len(new) - len(shared),
        unlike=len(shared) - len(same),
        all=_difference(list(pairs.values())),
        kinds=_by(pairs, "kind"),
        families=_by(pairs, "family"),
        changed=tuple(
            _changed(before, after, first, second)
            for before, after in pairs.values()
            if _right(before) != _right(after)
        ),
    )


def _asked(row: Row) -> tuple[str, ...]:
    return row.question, row.kind, row.wanted


def _by(pairs: dict[str, tuple[list[Row], list[Row]]], name: str) -> dict[str, Difference]:
    found: dict[str, list[tuple[list[Row], list[Row]]]] = {}
    for before, after in pairs.values():
        if value := getattr(before[0], name):
            found.setdefault(value, []).append((before, after))
    return {value: _difference(some) for value, some in found.items()}


def _difference(pairs: Sequence[tuple[list[Row], list[Row]]]) -> Difference:
    right = _paired(pairs, lambda row: float(row.right))
    measured = [pair for pair in pairs if pair[0][0].tiou is not None and pair[1][0].tiou is not None]
    changes = [_right(after) - _right(before) for before, after in pairs]
    return Difference(
        first=sum(_right(before) for before, _ in pairs) / len(pairs),
        second=sum(_right(after) for _, after in pairs) / len(pairs),
        difference=right,
        better=sum(change > 0 for change in changes),
        worse=sum(change < 0 for change in changes),
        tiou=_paired(measured, lambda row: row.tiou or 0.0) if measured else None,
    )


def _paired(pairs: Sequence[tuple[list[Row], list[Row]]], value: Callable[[Row], float]) -> Estimate:
    old, groups = question_means([row for before, _ in pairs for row in before], value)
    new, _ = question_means([row for _, after in pairs for row in after], value)
    return estimate([new[each] - old[each] for each in old], [groups[each] for each in old])


def _right(rows: Sequence[Row]) -> float:
    return sum(row.right for row in rows) / len(rows)


def _changed(before: Sequence[Row], after: Sequence[Row], first: Path, second: Path) -> Changed:
    return Changed(
        id=before[0].id,
        kind=before[0].kind,
        question=before[0].question,
        wanted=before[0].wanted,
        first=_right(before),
        second=_right(after),
        first_said=_said(before),
        second_said=_said(after),
        first_run=_run(before, first),
        second_run=_run(after, second),
    )


def _said(rows: Sequence[Row]) -> str:
    return " | ".join(dict.fromkeys(row.said or f"({row.status})" for row in rows))


def _run(rows: Sequence[Row], folder: Path) -> str | None:
    """The run to open: a wrong one where there is one."""
    run = next((row.run for row in rows if not row.right and row.run), rows[0].run)
    return None if run is None else str(folder / run)
