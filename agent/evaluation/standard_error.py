"""How far a share of right answers may be off, and the difference of two.

Sources: Miller 2024, "Adding Error Bars to Evals: A Statistical Approach to Language Model Evaluations"
(arXiv:2411.00640): answers to one question averaged first, errors clustered where questions share material, paired
differences for two models. The estimator is the cluster-robust one of a mean (Liang and Zeger 1986), with the factor
G / (G - 1) for few clusters (Cameron and Miller 2015, "A Practitioner's Guide to Cluster-Robust Inference").
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error."""

    mean: float
    error: float
    """None of the spread between videos is in it where there is one cluster only."""
    n: int
    """Questions."""
    clusters: int
    """Groups of questions that are independent of each other."""

    @property
    def clustered(self) -> bool:
        """Whether the error counts questions of one cluster as dependent."""
        return 1 < self.clusters < self.n


def estimate(values: Sequence[float], clusters: Sequence[Hashable]) -> Estimate:
    """The mean of one value for each question, and its standard error.

    Where every question is its own cluster, or all are of one, this is ``sqrt(sum((v - mean)^2)) / n``: for values of
    0 and 1 the binomial error ``sqrt(p (1 - p) / n)``. Otherwise
    ``sqrt(G / (G - 1) * sum over clusters of (sum of (v - mean) in it)^2) / n``. ValueError without values.
    """
    if not values or len(values) != len(clusters):
        raise ValueError(f"{len(values)} values with {len(clusters)} clusters have no mean")
    n, mean = len(values), math.fsum(values) / len(values)
    sums: dict[Hashable, float] = {}
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + value - mean
    count = len(sums)
    if 1 < count < n:
        squares = math.fsum(total * total for total in sums.values()) * count / (count - 1)
    else:
        squares = math.fsum((value - mean) ** 2 for value in values)
    return Estimate(mean, math.sqrt(squares) / n, n, count)
