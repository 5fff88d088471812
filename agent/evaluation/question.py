"""A question with a known answer: as it is written down, and as it is asked and scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from keyeloop.agent.batch.task_file import TaskLine
from keyeloop.agent.evaluation.interval import Interval
from keyeloop.agent.evaluation.number import Tolerance
from keyeloop.agent.task import Task

KindName = Literal["exact", "choice", "number", "interval", "judged"]
"""How an answer is scored."""


class QuestionLine(TaskLine):
    """One question of a file: a task with what is wanted in answer, in the form that ``keyeloop demo-video`` writes."""

    kind: KindName | None = None
    """Left out: ``choice`` with options, ``number`` with a tolerance, ``interval`` without answer, else ``exact``."""
    family: str = ""
    """A group of the writer's own, for the report."""
    answer: str | int | float | list[str | int | float] | None = None
    """What is wanted; of several, any one."""
    options: list[str] | dict[str, str] | None = None
    """For a choice: texts (lettered A, B, ...), or texts by letter."""
    tolerance: int | float | str | None = None
    """For a number: ``0.5``, or ``"5%"`` of the wanted number."""
    start_s: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Where the answer is to be seen; for an interval, the answer itself."""
    end_s: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    notes: Any = None
    """The writer's own; kept out of everything."""

    def wanted(self) -> tuple[str, ...]:
        """The accepted answers, as text."""
        every = self.answer if isinstance(self.answer, list) else [] if self.answer is None else [self.answer]
        return tuple(str(each).strip() for each in every)

    def lettered(self) -> dict[str, str]:
        """The options by capital letter."""
        if isinstance(self.options, dict):
            return {letter.strip().upper(): text for letter, text in self.options.items()}
        return {chr(ord("A") + number): text for number, text in enumerate(self.options or [])}


@dataclass(frozen=True)
class Question:
    """A question that was checked, with all that asking and scoring it needs."""

    id: str
    kind: KindName
    family: str
    text: str
    """As written; ``task.task`` is what the model reads, options and instructions included."""
    wanted: tuple[str, ...]
    options: dict[str, str]
    tolerance: Tolerance
    start_s: float | None
    end_s: float | None
    task: Task
    """As it is asked, under the question's id."""
    asked: dict[str, Any]
    """As :meth:`TaskLine.asked`: two questions that ask the same are the same."""
    group: str
    """What it shares with others that are not independent of it: its first video, or its first picture."""

    @property
    def interval(self) -> Interval | None:
        """Where the answer is to be seen, in seconds; None where that is not said."""
        return None if self.start_s is None or self.end_s is None else (self.start_s, self.end_s)

    @property
    def wanted_words(self) -> str:
        """What is wanted, for people."""
        if self.kind == "interval":
            return f"{self.start_s:g} to {self.end_s:g} s"
        return " or ".join(self.wanted)
