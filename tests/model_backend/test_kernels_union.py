"""Attention by unions of adjacent queries: torch against float64, Triton against both."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor

from keyeloop.model_backend.kernels import ops, unions
from tests.model_backend.keye_models import random_prompt, small_model
from tests.model_backend.paged_problems import Problem, problem

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
HERE = find_spec("triton") is not None and (GPU or os.environ.get("TRITON_INTERPRET") == "1")
TYPES = {torch.float32: 1e-5, torch.float16: 2e-3} | ({torch.bfloat16: 1.5e-2} if GPU else {})


def on_triton(test: Callable[..., None]) -> Any:
    """Marks what runs Triton."""
    missing = pytest.mark.skipif(not HERE, reason="needs the package triton, and a GPU or TRITON_INTERPRET=1")
    return pytest.mark.triton(missing(test))


def borders(topk: int = 40, **given: Any) -> tuple[Problem, Tensor]:
    """Blocks of one, two and three requests, short rows, a row with holes, rows of padding that end a block."""
    task = problem("exact", (300, 1, 70, 9), (18, 1, 5, 9), topk=topk, padding=4, device=DEVICE, **given)
    chosen = task.select()
    chosen[0, 5:30] = -1
    chosen[17] = -1
    return task, chosen


def alike(task: Problem, shared: int) -> Tensor:
    """Choices of which adjacent queries have all but the last few in common."""
    chosen = task.select()
    length, topk = int(task.positions[0]) + 1, task.topk
    random = torch.Generator().manual_seed(3)
    base = torch.randperm(length, generator=random)
    for query in range(len(chosen)):
        rest = base[shared:][torch.randperm(length - shared, generator=random)[: topk - shared]]
        chosen[query] = torch.cat((base[:shared], rest)).sort().values.to(chosen)
    return chosen


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


@on_triton
@pytest.mark.parametrize("queries", [8, 16])
@pytest.mark.parametrize("words", [16, 2048])
def test_lists_are_the_reference_to_the_bit(queries: int, words: int) -> None:
    from keyeloop.model_backend.kernels.jit import union

    work = union.Work(2, 256, words, 4, 64)  # each program has several blocks, and must leave its memory clean
    task, chosen = borders()
    for width in (None, 300):
        _same_lists(union.unite(chosen, task.rows, task.table, queries, width=width, work=work), task, chosen, queries)
    disjoint = torch.arange(18 * 16, dtype=torch.int32, device=DEVICE).view(18, 16)
    rows = torch.ones(18, dtype=torch.int32, device=DEVICE)
    made = union.unite(disjoint.flip(1).contiguous(), rows, task.table, queries, work=work)
    assert made.lengths.tolist() == [16 * len(part) for part in torch.split(rows, queries)]
    _same_lists(made, Problem(**{**vars(task), "rows": rows}), disjoint, queries)
    nothing = union.unite(torch.full_like(disjoint, -1), rows, task.table, queries, work=work)
    assert not nothing.lengths.any()


def _same_lists(made: object, task: Problem, chosen: Tensor, queries: int) -> None:
    from keyeloop.model_backend.kernels.jit.union import PAD, Unions

    assert isinstance(made, Unions)
    for number, block in enumerate(unions.unite(chosen, task.rows, queries)):
        length = len(block)
        assert int(made.lengths[number]) == length
        assert made.slots[number, :length].tolist() == [int(task.table[row, place]) for row, place, _ in block]
        assert [mask & 0xFFFF for mask in made.masks[number, :length].tolist()] == [mask for _, _, mask in block]
        filled = slice(length, -(-length // PAD) * PAD)
        assert not made.masks[number, filled].any()
        assert set(made.slots[number, filled].tolist()) <= set(made.slots[number, :length].tolist())


@on_triton
def test_blocks_that_share_too_little_have_no_list() -> None:
    from keyeloop.model_backend.kernels.jit import union

    task = problem("exact", (600,), (24,), topk=64, device=DEVICE)
    chosen = alike(task, 56)
    chosen[8:16] = torch.stack([torch.randperm(500)[:64].sort().values for _ in range(8)]).to(chosen)
    lengths = union.unite(chosen, task.rows, task.table, 8, share=0.5).lengths.tolist()
    assert lengths[1] == -1
    assert all(64 <= length <= 64 * 4 for length in (lengths[0], lengths[2]))


@on_triton
def test_the_list_is_the_judge_whatever_the_sample_says() -> None:
    """All share what is sampled, and nothing else: the list that is begun does not fit."""
    from keyeloop.model_backend.kernels.jit import union

    index, query = torch.arange(1024), torch.arange(8).unsqueeze(1)
    chosen = (index * 8 + torch.where(index % 8 == 4, 0, query)).to(torch.int32).to(DEVICE)
    rows, table = torch.zeros(8, dtype=torch.int32), torch.arange(8192, dtype=torch.int32).unsqueeze(0)
    given = (chosen, rows.to(DEVICE), table.to(DEVICE), 8)
    assert union.unite(*given, share=0.5).lengths.tolist() == [-1]
    assert union.unite(*given, share=1.0).lengths.tolist() == [128 + 8 * 896]


@on_triton
@pytest.mark.parametrize(
    ("shape", "queries", "dtype"),
    [((8, 2, 32), 8, dtype) for dtype in TYPES]
    + [((8, 1, 128), 16, torch.float16), ((6, 2, 24), 8, torch.float16), ((4, 4, 16), 16, torch.float32)],
)
def test_attention_equals_softmax(shape: tuple[int, int, int], queries: int, dtype: torch.dtype) -> None:
    from keyeloop.model_backend.kernels.jit.union_attention import Tiling, prefill_attention

    task, chosen = borders(shape=shape, dtype=dtype)
    limit = TYPES[dtype]
    task.q[:8] *= 30.0  # peaks that move far
    expected = task.by_softmax(chosen)
    for share, apart in ((1.0, True), (1.0, False), (0.0, True)):
        given = (task.q, task.k, task.v, task.table, task.rows, chosen, shape[2] ** -0.5)
        tiling = Tiling(queries, 32, 4, 2, apart)
        found = prefill_attention(*given, share=share, tiling=tiling)
        torch.testing.assert_close(found.double(), expected, rtol=limit, atol=limit)
        assert found[-4:].abs().sum() == 0
        assert found[17].abs().sum() == 0
    assert torch.equal(found, prefill_attention(*given, share=share, tiling=tiling))


@on_triton
@pytest.mark.filterwarnings("ignore:All-NaN")
def test_blocks_with_and_without_lists_make_one_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through ops, in pieces, some blocks gathered and some not, and a query that is NaN for itself alone."""
    from keyeloop.model_backend.kernels import fast
    from keyeloop.model_backend.kernels.jit import union_attention

    monkeypatch.setattr(fast, "UNION_TOKENS", 16)
    monkeypatch.setattr(union_attention, "QUERIES_AT_ONCE", 16)
    task = problem("exact", (600,), (27,), topk=64, device=DEVICE)
    chosen = alike(task, 60)
    chosen[8:16] = torch.stack([torch.randperm(500)[:64].sort().values for _ in range(8)]).to(chosen)
    given = (task.q, task.k, task.v, task.table, task.rows, chosen, 32**-0.5)
    found = ops.sparse_attention(*given, one_each=False, kernels="triton")
    torch.testing.assert_close(found.double(), task.by_softmax(chosen), rtol=1e-5, atol=1e-5)
    task.q[3] = torch.nan
    poisoned = ops.sparse_attention(*given, max_tokens=600, one_each=False, kernels="triton")
    assert poisoned[3].isnan().all()
    others = torch.arange(27, device=DEVICE) != 3
    assert torch.equal(poisoned[others], found[others])
