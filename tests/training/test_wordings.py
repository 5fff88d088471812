"""The grammar of questions: it says what is asked, and never in the words that evaluation holds out."""

from __future__ import annotations

import random
import re

import pytest

from keyeloop.tools.demo_video import questions
from keyeloop.tools.demo_video.questions import Question
from training.keye_tiny.wordings import HELD_OUT, Kind, aside, kind_of, say

KINDS: tuple[Kind, ...] = ("number", "word", "sign", "+", "-", "*")
HELD_OUT_SETS = (
    questions.NUMBER_HELDOUT, questions.WORD_HELDOUT, questions.SIGN_HELDOUT, questions.SUM_HELDOUT,
    questions.DIFFERENCE_HELDOUT, questions.PRODUCT_HELDOUT,
)  # fmt: skip


def drawn(kind: Kind, count: int) -> list[str]:
    rng = random.Random(kind)
    return [say(rng, kind, ["0:17", "85.5 s"] if kind in "+-*" else ["0:17"]) for _ in range(count)]


def test_what_is_held_out_is_known_by_its_words() -> None:
    for wordings in HELD_OUT_SETS:
        for wording in wordings:
            assert HELD_OUT.search(wording), wording


@pytest.mark.parametrize("kind", KINDS)
def test_no_wording_is_one_that_evaluation_holds_out(kind: Kind) -> None:
    held_out = [
        re.compile(re.escape(wording).replace(r"\{t\}", ".+").replace(r"\{u\}", ".+"), re.IGNORECASE)
        for wordings in HELD_OUT_SETS
        for wording in wordings
    ]
    for text in drawn(kind, 2000):
        assert not HELD_OUT.search(text), text
        assert not any(pattern.search(text) for pattern in held_out), text


@pytest.mark.parametrize("kind", KINDS)
def test_a_wording_names_its_moments_and_there_are_many(kind: Kind) -> None:
    found = drawn(kind, 2000)
    assert all("0:17" in text and (kind not in "+-*" or "85.5 s" in text) for text in found)
    assert len(set(found)) > 1000


def test_a_sign_is_always_called_small() -> None:
    assert all("small sign" in text for text in drawn("sign", 2000))


@pytest.mark.parametrize(
    ("wordings", "kind"),
    [(questions.NUMBER, "number"), (questions.WORD, "word"), (questions.SIGN, "sign")],
)
def test_the_kind_of_a_question_is_known_from_its_words(wordings: tuple[str, ...], kind: str) -> None:
    assert {kind_of(Question("read", text, "", 0, 1, (0,))) for text in wordings} == {kind}


def test_an_aside_keeps_the_request() -> None:
    rng = random.Random(1)
    assert all(aside(rng, "File it under A.").casefold().endswith("file it under a.") for _ in range(200))
