"""What adjacent queries choose together: lists and attention by them in torch, and how long they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from keyeloop.model_backend.kernels import unions
from tests.model_backend.keye_models import random_prompt, small_model
from tests.model_backend.paged_problems import Problem, problem


def borders(topk: int = 40, **given: Any) -> tuple[Problem, Tensor]:
    """Blocks of one, two and three requests, short rows, a row with holes, rows of padding that end a block."""
    task = problem("exact", (300, 1, 70, 9), (18, 1, 5, 9), topk=topk, padding=4, **given)
    chosen = task.select()
    chosen[0, 5:30] = -1
    chosen[17] = -1
    return task, chosen


@pytest.mark.parametrize("queries", [1, 8, 16])
def test_torch_side_equals_softmax(queries: int) -> None:
    task, chosen = borders(shape=(8, 2, 32), dtype=torch.float64)
    found = unions.attend_by_union(
        task.q, task.k, task.v, task.table, task.rows, chosen, task.q.shape[-1] ** -0.5, queries
    )
    torch.testing.assert_close(found, task.by_softmax(chosen), rtol=1e-12, atol=1e-12)
    assert found[-4:].abs().sum() == 0


def test_union_sizes_count_distinct_places() -> None:
    _, chosen = borders()
    for queries in (1, 2, 8):
        expected = [
            len({place for row in block.tolist() for place in row if place >= 0})
            for block in torch.split(chosen[: len(chosen) // queries * queries], queries)
        ]
        assert unions.union_sizes(chosen, queries).tolist() == expected
    same = chosen[:1].repeat(16, 1)
    assert unions.union_sizes(same, 16).tolist() == [int((same[0] >= 0).sum())]
    assert unions.union_sizes(same, 32).tolist() == []
    assert unions.mean_overlap(same) == 1.0
    assert unions.mean_overlap(torch.tensor([[0, 1, 2, 3], [2, 3, 4, -1]])) == pytest.approx(2 / 3)


def test_choices_of_every_layer_are_noted() -> None:
    from benchmarks.kernels.overlap import choices_noted, layer_rows

    model, tokens = small_model(torch.float32), 60
    x, places = random_prompt(model, tokens)
    topk = model.config.indexer.topk
    with torch.inference_mode(), choices_noted() as noted:
        for _ in range(2):
            model(x, places)
    table = layer_rows(noted)
    assert [row["layer"] for row in table] == list(range(model.config.num_hidden_layers))
    for row in table:
        assert row["queries"] == 2 * (tokens - topk)
        assert row["topk"] == topk
        assert 0 < row["overlap"] <= 1
        assert 1 <= row["union of 8"] <= row["union of 16"] <= row["union of 32"] <= tokens / topk
