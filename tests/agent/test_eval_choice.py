"""The option that an answer chooses, through everything that models wrap around a letter."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyeloop.agent.evaluation.choice import read_choice, score_choice, with_options
from keyeloop.agent.evaluation.score import Said

CARS = {"A": "a red car", "B": "a blue car", "C": "a dark blue car", "D": "none of these"}

CASES = [
    ("B", "B"),
    ("(b)", "B"),
    ("b.", "B"),
    ("**C**", "C"),
    (r"$\boxed{D}$", "D"),
    (r"\boxed{\text{D}}", "D"),
    ("<B>", "B"),
    ("A red car", "A"),
    ("a dark blue car.", "C"),
    ("None of these", "D"),
    ("The answer is B.", "B"),
    ("The answer is (C), not B", "C"),
    ("The answer is not A but B", "B"),
    ("The answer isn't B", None),
    ("answer: d", "D"),
    ("Answer:(B)", "B"),
    ("Final answer:\n\nC", "C"),
    ("The correct choice is B: a blue car", "B"),
    ("The answer is A because it is red", "A"),
    ("Answer: A red car", "A"),
    ("the answer is a dark blue car", "C"),
    ("The answer is B. No, wait: the answer is C.", "C"),
    ("Answer: B, C", None),
    ("A and B", None),
    ("A or B", None),
    ("A, B and C are all there", None),
    ("B) a blue car", "B"),
    ("B. I considered A and C.", "B"),
    ("C, since it is dark", "C"),
    ("A: a red car", "A"),
    ("Looking at the frames, the car is blue.\n\nB", "B"),
    ("Option A is wrong, option B is right", "B"),
    ("Option B is right; option A is wrong.", "B"),
    ("I'd choose option D.", "D"),
    ("Between A and C, I choose C.", "C"),
    ("Let's see. A is out. B is wrong. So C", "C"),
    ("Both the red and the blue; hence D", "D"),
    ("A man is walking past a blue car", "B"),
    ("It shows a dark blue car.", "C"),
    ("The car is dark blue.", None),
    ("I think it is C", "C"),
    ("Not B.", None),
    ("It is not a red car", None),
    ("I am not sure", None),
    ("The answer is I", None),
    ("E", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "wanted"), CASES)
def test_what_an_answer_chooses(text: str, wanted: str | None) -> None:
    assert read_choice(text, CARS) == wanted


def test_citations_do_not_choose() -> None:
    assert score_choice("C", CARS, Said("C [f1 10,20,300,400] [video-1 83.0s]")).right
    assert not score_choice("B", CARS, Said("[f1; f2]")).right


def test_a_letter_that_is_an_option_s_text_is_still_a_letter() -> None:
    assert read_choice("B", {"A": "B", "B": "A"}) == "B"


def test_options_that_hold_others() -> None:
    numbers = {"A": "1", "B": "10", "C": "100"}
    assert [read_choice(text, numbers) for text in ("10", "There are 100.", "It says 1, I think")] == ["B", "C", "A"]
    assert read_choice("Either 10 or 100", numbers) is None


@given(st.sampled_from("ABCD"), st.sampled_from(["{}", "({})", "{}.", "Answer: {}", "The answer is **{}**.", "{}\n"]))
def test_any_letter_in_any_wrapping(letter: str, wrapping: str) -> None:
    assert read_choice(wrapping.format(letter), CARS) == letter


@given(st.text(alphabet=string.printable + "é’“—", max_size=80))
def test_no_text_breaks_it(text: str) -> None:
    assert read_choice(text, CARS) in (*CARS, None)


def test_how_it_is_asked() -> None:
    asked = with_options("Which car?", {"A": "red", "B": "blue"})
    assert asked == "Which car?\nA. red\nB. blue\nAnswer with the letter of one option."
