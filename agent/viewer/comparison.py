"""Two runs laid beside each other: every difference at its step, the first one marked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from keyeloop.agent.comparing import Difference, compare
from keyeloop.agent.viewer.opened import OpenedRun
from keyeloop.agent.viewer.timeline import StepView, step_views
from keyeloop.runtime.content import MediaRef

MOST_STEPS = 400
"""More steps than this are not laid out."""
ENDS = frozenset({"status", "answer", "citations"})


@dataclass(frozen=True)
class Row:
    """A step of each run; None where one has no more."""

    left: StepView | None
    right: StepView | None
    differences: tuple[Difference, ...]
    pictures: tuple[tuple[MediaRef, MediaRef, str], ...]
    """Those of them that are about pictures: left, right, how they differ."""
    first: bool
    """Where the runs part."""

    @property
    def turn(self) -> int:
        """Its number."""
        view = self.left or self.right
        return view.step.turn if view else 0


@dataclass(frozen=True)
class SideBySide:
    """What a page of two runs shows."""

    began: tuple[Difference, ...]
    """How they began differently: model, tools, sources, question, first messages."""
    rows: tuple[Row, ...]
    ended: tuple[Difference, ...]
    """How their ends differ."""

    @property
    def first(self) -> Row | None:
        """The step in which they part."""
        return next((row for row in self.rows if row.first), None)


def lay_beside(left: OpenedRun, right: OpenedRun) -> SideBySide:
    """Two runs, step by step of each question."""
    found = compare(left.run, right.run).differences
    outside = [difference for difference in found if difference.step == 0]
    return SideBySide(
        began=tuple(difference for difference in outside if difference.what not in ENDS),
        rows=tuple(_rows(left, right, [difference for difference in found if difference.step])),
        ended=tuple(difference for difference in outside if difference.what in ENDS),
    )


def _rows(left: OpenedRun, right: OpenedRun, found: Sequence[Difference]) -> Iterator[Row]:
    sides = [_by_question(opened) for opened in (left, right)]
    first = found[0] if found else None
    for number, questions in enumerate(zip_longest(*sides, fillvalue=()), 1):
        for place, (mine, theirs) in enumerate(zip_longest(*questions), 1):
            own = tuple(one for one in found if (one.question, one.step) == (number, place))
            pictures = tuple(
                (left.media[apart.one], right.media[apart.other], apart.words)
                for apart in (one.picture for one in own)
                if apart is not None and apart.one in left.media and apart.other in right.media
            )
            yield Row(mine, theirs, own, pictures, first in own)


def _by_question(opened: OpenedRun) -> list[list[StepView]]:
    views: dict[int, list[StepView]] = {exchange.number: [] for exchange in opened.run.exchanges}
    for view in step_views(opened, 0, MOST_STEPS):
        views[view.exchange.number].append(view)
    return list(views.values())
