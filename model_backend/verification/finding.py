"""What was found about one thing that our code takes for granted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

State = Literal["confirmed", "different", "unknown"]


@dataclass(frozen=True)
class Finding:
    """One open point: what we expect and why, what there is, and which file of ours to change where it differs."""

    key: str
    """A stable name, such as ``rope-theta``."""
    point: int | None
    """Number of the open point (see :data:`.points.POINTS`); None for what only a running server shows."""
    state: State
    expected: str
    found: str
    source: str
    """Where the expectation comes from."""
    change: str
    """The file of this project that says it, from the repository's root."""
    settles: tuple[str, ...] = ()
    """Keys that are confirmed with this one where the checkpoint alone leaves them unknown."""


def judged(
    key: str,
    point: int | None,
    holds: bool | None,
    *,
    expected: str,
    found: str,
    source: str,
    change: str,
    settles: tuple[str, ...] = (),
) -> Finding:
    """A finding from a verdict; None is unknown."""
    state: State = "unknown" if holds is None else "confirmed" if holds else "different"
    return Finding(key, point, state, expected, found, source, change, settles)


def settled(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Unknown findings that a confirmed one settles become confirmed, and say by which."""
    every = tuple(findings)
    by = {key: one for one in every if one.state == "confirmed" for key in one.settles}
    return tuple(
        replace(one, state="confirmed", found=f"{one.found}; settled by {by[one.key].key}")
        if one.state == "unknown" and one.key in by
        else one
        for one in every
    )


def counts(findings: Iterable[Finding]) -> dict[State, int]:
    """How many there are of each state."""
    made: dict[State, int] = {"confirmed": 0, "different": 0, "unknown": 0}
    for one in findings:
        made[one.state] += 1
    return made
