"""Standard errors, against formulas written out another way and against drawing again."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyeloop.agent.evaluation.standard_error import estimate

VALUES = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 6)), min_size=1, max_size=40)


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_independent_answers_have_the_binomial_error(right: list[bool]) -> None:
    share = sum(right) / len(right)
    made = estimate([float(each) for each in right], list(range(len(right))))
    assert made.mean == pytest.approx(share) and not made.clustered
    assert made.error == pytest.approx(math.sqrt(share * (1 - share) / len(right)))


@given(VALUES)
def test_clustered_error_is_the_sandwich_of_a_regression_on_a_constant(drawn: list[tuple[float, int]]) -> None:
    """(X'X)^-1 (sum over clusters of X_g' u_g u_g' X_g) (X'X)^-1 with X a column of ones, by matrices."""
    values, clusters = np.array([value for value, _ in drawn]), np.array([cluster for _, cluster in drawn])
    made = estimate(list(values), list(clusters))
    count = len(set(clusters))
    if not 1 < count < len(values):
        assert made.error == pytest.approx(values.std() / math.sqrt(len(values)))
        return
    ones = np.ones((len(values), 1))
    residuals = values - ones[:, 0] * np.linalg.lstsq(ones, values, rcond=None)[0]
    bread = np.linalg.inv(ones.T @ ones)
    meat = sum((one := ones[clusters == each].T @ residuals[clusters == each, None]) @ one.T for each in set(clusters))
    assert made.error == pytest.approx(math.sqrt((bread @ meat @ bread)[0, 0] * count / (count - 1)), abs=1e-12)


@given(VALUES)
def test_clustered_error_is_that_of_all_pairs_within_clusters(drawn: list[tuple[float, int]]) -> None:
    """Miller 2024, equation of the clustered error: the plain variance and every pair of one cluster."""
    values, clusters = [value for value, _ in drawn], [cluster for _, cluster in drawn]
    made, n, count = estimate(values, clusters), len(values), len(set(clusters))
    if not made.clustered:
        return
    mean = sum(values) / n
    plain = sum((value - mean) ** 2 for value in values) / n**2
    pairs = sum(
        (values[i] - mean) * (values[j] - mean)
        for i in range(n)
        for j in range(n)
        if i != j and clusters[i] == clusters[j]
    )
    assert made.error**2 == pytest.approx((plain + pairs / n**2) * count / (count - 1), abs=1e-9)


def test_the_error_is_the_spread_of_evaluations_drawn_anew() -> None:
    """Videos are hard or easy, and their questions with them: only the clustered error knows."""
    rng = random.Random(7)

    def draw() -> tuple[list[float], list[int]]:
        values, clusters = [], []
        for video in range(40):
            ease = rng.choice((0.15, 0.9))
            values += [float(rng.random() < ease) for _ in range(6)]
            clusters += [video] * 6
        return values, clusters

    made = [estimate(*draw()) for _ in range(300)]
    spread = float(np.std([each.mean for each in made]))
    assert sum(each.error for each in made) / 300 == pytest.approx(spread, rel=0.1)
    naive = sum(math.sqrt(each.mean * (1 - each.mean) / each.n) for each in made) / 300
    assert naive < 0.6 * spread


def test_one_video_has_no_spread_between_videos() -> None:
    made = estimate([1.0, 0.0, 1.0, 1.0], ["a"] * 4)
    assert made.error == pytest.approx(math.sqrt(0.75 * 0.25 / 4)) and made.clusters == 1


def test_no_values_have_no_mean() -> None:
    with pytest.raises(ValueError, match="0 values"):
        estimate([], [])
