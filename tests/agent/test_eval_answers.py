"""Exact answers, numbers and intervals: what is read out of an answer, and when it is right."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from keyeloop.agent.evaluation.exact import score_exact
from keyeloop.agent.evaluation.interval import read_interval, score_interval, tiou
from keyeloop.agent.evaluation.number import Tolerance, numbers_in, read_number, score_number
from keyeloop.agent.evaluation.score import Said

SECONDS = st.floats(0, 1e5, allow_nan=False).map(lambda value: round(value, 3))
INTERVALS = st.tuples(SECONDS, SECONDS)


@pytest.mark.parametrize(
    ("wanted", "said", "right"),
    [
        ("417", "417 [f1 310,200,640,460]", True),
        ("417", "418", False),
        ("BETA", ' "beta". [f2]', True),
        ("Jirmai", "the word is Jirmai", False),
        ("not there", "Not there: the video ends before that. [f1]", True),
        ("not there", "there", False),
        ("there", "there is more", False),
        ("straße", "STRASSE", True),
        ("two  words", "Two words", True),
        ("-145", "−145", True),
        ("3", "", False),
    ],
)
def test_exact(wanted: str, said: str, right: bool) -> None:
    assert score_exact([wanted], Said(said)).right is right


def test_any_of_several_will_do() -> None:
    assert score_exact(["grey", "gray"], Said("Gray")).right


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("383 + 821 = 1204", [383, 821, 1204]),
        ("1,204 km/h", [1204]),
        ("1'204'000 m", [1204000]),
        ("1 204", [1, 204]),
        ("1\u202f204 people", [1204]),
        ("1.204,5", [1204.5]),
        ("1.204.000", [1204000]),
        ("1.204", [1.204]),
        ("3,5 m", [3.5]),
        ("1,00,000", [100000]),
        ("3,5,7", [3, 5, 7]),
        ("(-145)", [-145]),
        ("\u2212145", [-145]),
        ("3-5", [3, 5]),
        ("-3.5%", [-3.5]),
        ("$1,204.50.", [1204.5]),
        ("1e3 or 2.5E-1", [1000, 0.25]),
        ("5k", [5000]),
        ("5 km", [5]),
        ("2.5 million views", [2.5e6]),
        ("at 1:23.5", [83.5]),
        ("1:02:03", [3723]),
        ("16:9", [16, 9]),
        ("frame f1 of video-1 shows H2O", [1]),
        ("twenty-one", [21]),
        ("two hundred and five thousand", [205000]),
        ("two thousand three hundred", [2300]),
        ("four of the five", [4, 5]),
        ("one or two", [1, 2]),
        ("three of 4", [4]),
        ("nothing", []),
        ("", []),
    ],
)
def test_numbers_in_words_of_all_sorts(text: str, found: list[float]) -> None:
    assert numbers_in(text) == pytest.approx(found)


@given(st.integers(-(10**12), 10**12), st.sampled_from(["{:,}", "{}", "about {:,} km/h", "{:_}", "It is {:,}."]))
def test_whole_numbers_come_back(number: int, wording: str) -> None:
    text = wording.format(number).replace("_", "\u00a0")
    assert read_number(text) == number


@given(st.floats(-1e9, 1e9, allow_nan=False), st.integers(0, 6))
def test_decimals_come_back(number: float, places: int) -> None:
    text = f"{number:,.{places}f}"
    assert read_number(f"so {text} seconds") == pytest.approx(float(text.replace(",", "")))


@given(st.text(max_size=60))
@example("1e999999")
@example("9" * 400)
def test_no_text_breaks_the_reading_of_numbers(text: str) -> None:
    assert all(isinstance(each, float) for each in numbers_in(text))
    read_interval(text)


@pytest.mark.parametrize(
    ("tolerance", "found", "right"),
    [
        (0, "100", True),
        (0, "100.1", False),
        (0.5, "100.5", True),
        (0.5, "99.4", False),
        ("5%", "105", True),
        ("5%", "94.9", False),
        ("5 %", "95.0", True),
        (0, "no number", False),
        (0, "100 or 99", False),
    ],
)
def test_tolerances(tolerance: float | str, found: str, right: bool) -> None:
    assert score_number(100.0, Tolerance.parse(tolerance), Said(found)).right is right


@pytest.mark.parametrize("tolerance", ["five", "-1", "nan", "inf", "%", ""])
def test_a_tolerance_that_is_none(tolerance: str) -> None:
    with pytest.raises(ValueError):
        Tolerance.parse(tolerance)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from 83.0 s to 91.5 s", (83.0, 91.5)),
        ("1:23-1:31", (83, 91)),
        ("[83, 91.5]", (83, 91.5)),
        ("[83,91]", (83, 91)),
        ("0:03 – 0:09.5", (3, 9.5)),
        ("It starts at 83 s and ends at 91.5 s in video 1.", (83, 91.5)),
        ("between about 12 and around 15 seconds", (12, 15)),
        ("2 min 5 s to 3 min", (125, 180)),
        ("1 h 2 min until 1 h 3 min 4 s", (3720, 3784)),
        ("5 people walk from 3s to 9s", (3, 9)),
        ("1:02:03.5 until 1:02:09", (3723.5, 3729)),
        ('{"start_s": 3, "end_s": 9.5}', (3, 9.5)),
        ("First 1 to 2 s, or rather 3 to 9 s", (3, 9)),
        ("9 to 5", None),
        ("at 5 s", None),
        ("never", None),
        ("3 s, 5 s and 9 s", (5, 9)),
    ],
)
def test_intervals_in_words_of_all_sorts(text: str, found: tuple[float, float] | None) -> None:
    assert read_interval(text) == found


def test_cited_moments_make_an_interval_where_the_text_has_none() -> None:
    assert read_interval("here", (9.0, 3.0, 5.0)) == (3, 9)
    assert read_interval("from 1 to 2 s", (3.0, 9.0)) == (1, 2)
    assert read_interval("here", (3.0,)) is None and read_interval("here", (3.0, 3.0)) is None
    said = Said("[video-1 83.0s] to [video-1 91.5s]", (83.0, 91.5))
    assert score_interval((83.0, 91.5), said).tiou == 1


@given(SECONDS, SECONDS)
def test_written_intervals_come_back(one: float, other: float) -> None:
    start_s, end_s = sorted((one, other))
    for wording in ("from {} s to {} s", "{}-{}", "[{}, {}]", "between {} and {} seconds"):
        text = wording.format(f"{start_s:.3f}", f"{end_s:.3f}")
        assert read_interval(text) == ((start_s, end_s) if start_s < end_s else None), text


def sampled_tiou(one: tuple[float, float], other: tuple[float, float]) -> float:
    """The share of random points in either interval that lie in both."""
    rng = random.Random(0)
    low, high = min(one[0], other[0]), max(one[1], other[1])
    points = [rng.uniform(low, high) for _ in range(20_000)]
    inside = [(one[0] <= at <= one[1], other[0] <= at <= other[1]) for at in points]
    either = sum(a or b for a, b in inside)
    return sum(a and b for a, b in inside) / either


@pytest.mark.parametrize("other", [(0, 10), (5, 15), (2, 3), (9, 30), (-5, 40), (11, 12)])
def test_tiou_against_points_drawn_at_random(other: tuple[float, float]) -> None:
    assert tiou((0, 10), other) == pytest.approx(sampled_tiou((0, 10), other), abs=0.015)


@given(INTERVALS, INTERVALS)
def test_tiou_is_symmetric_bounded_and_1_only_for_the_same(
    one: tuple[float, float], other: tuple[float, float]
) -> None:
    measured = tiou(one, other)
    assert 0 <= measured <= 1 and measured == tiou(other, one)
    assert tiou(one, one) == (1 if one[0] < one[1] else 0)
    if one[1] <= other[0]:
        assert measured == 0


@given(INTERVALS, INTERVALS, st.floats(0.1, 10), SECONDS)
def test_tiou_does_not_depend_on_units_or_origin(
    one: tuple[float, float], other: tuple[float, float], scale: float, shift: float
) -> None:
    def moved(interval: tuple[float, float]) -> tuple[float, float]:
        return interval[0] * scale + shift, interval[1] * scale + shift

    assert math.isclose(tiou(one, other), tiou(moved(one), moved(other)), abs_tol=1e-4, rel_tol=1e-4)


def test_an_interval_is_right_from_half() -> None:
    assert score_interval((0, 10), Said("0 to 5 s")).right
    half = score_interval((0, 10), Said("0 to 4.9 s"))
    assert not half.right and half.tiou == pytest.approx(0.49) and half.read == "0 to 4.9 s"
    assert score_interval((0, 10), Said("somewhere")).tiou == 0
