"""Exact top-k: against sorting, with ties, short rows and bad values."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from keyeloop.model_backend.keye.selection import select, select_one


def by_sorting(row: list[float], k: int) -> list[int]:
    return sorted(sorted(range(len(row)), key=lambda place: (-row[place], place))[:k])


@given(st.data())
def test_select_equals_sorting(data: st.DataObject) -> None:
    keys, rows = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 4))
    k = data.draw(st.integers(1, 12))
    values = st.sampled_from([-2.0, -0.0, 0.0, 0.5, 1.0, 3.0])
    scores = [data.draw(st.lists(values, min_size=keys, max_size=keys)) for _ in range(rows)]
    lengths = data.draw(st.lists(st.integers(1, keys), min_size=rows, max_size=rows))
    found = select(torch.tensor(scores), k, torch.tensor(lengths)).tolist()
    for row, length, indices in zip(scores, lengths, found, strict=True):
        expected = by_sorting(row[:length], k)
        assert indices == expected + [-1] * (k - len(expected))
    if keys > k:
        assert select_one(torch.tensor(scores[:1]), k).tolist() == by_sorting(scores[0], k)


def test_sixty_thousand_equal_scores_take_the_first() -> None:
    expected = list(range(2048))
    assert select_one(torch.zeros(1, 60_000), 2048).tolist() == expected
    assert select(torch.zeros(1, 60_000), 2048, torch.tensor([60_000]))[0].tolist() == expected


def test_many_zeros_below_a_few_scores() -> None:
    scores = torch.zeros(1, 5000)
    scores[0, 4990:] = 1.0
    assert select_one(scores, 64).tolist() == [*range(54), *range(4990, 5000)]


def test_scores_that_differ_in_the_last_bit() -> None:
    row = 1.0 + torch.randperm(4096, generator=torch.Generator().manual_seed(3)) * 2.0**-23
    best = select_one(row.unsqueeze(0).clone(), 100)
    assert torch.equal(best, row.topk(100).indices.sort().values)


def test_one_bad_row_leaves_the_others_alone() -> None:
    scores = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    scores[1] = torch.nan
    lengths = torch.tensor([50, 50, 50])
    found = select(scores.clone(), 5, lengths)
    for row in (0, 2):
        assert found[row].tolist() == by_sorting(scores[row].tolist(), 5)


@pytest.mark.parametrize("value", [torch.inf, -3.0])
def test_infinite_and_negative_scores(value: float) -> None:
    scores = -torch.arange(1.0, 21.0).unsqueeze(0)
    scores[0, 13] = value
    assert select_one(scores.clone(), 4).tolist() == by_sorting(scores[0].tolist(), 4)
