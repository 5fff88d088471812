"""Answers that must be the words that were wanted; citations, case, white space and a full stop do not count."""

from __future__ import annotations

from collections.abc import Sequence

from keyeloop.agent.evaluation.score import Said, Score, folded

NOT_THERE = "not there"
"""What board videos want where nothing is to be seen; an answer may go on to say why."""


def score_exact(wanted: Sequence[str], said: Said) -> Score:
    """Right where the answer is one of ``wanted``, or begins with ``not there`` where that is wanted."""
    answer = folded(said.plain)
    right = any(
        answer == folded(each) or (folded(each) == NOT_THERE and answer.startswith(NOT_THERE)) for each in wanted
    )
    return Score(right, said.plain)
