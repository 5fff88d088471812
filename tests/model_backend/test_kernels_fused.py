"""Selection without scores in memory, beside the torch reference: on a GPU where there is one, else interpreted.

The interpreter adds up a product in an order of its own for each shape: whole numbers, where bits are compared.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from keyeloop.model_backend.keye.indexer import IndexerMode
from tests.model_backend.paged_problems import Problem, problem

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
HERE = find_spec("triton") is not None and (GPU or os.environ.get("TRITON_INTERPRET") == "1")
pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(not HERE, reason="needs the package triton, and a GPU or TRITON_INTERPRET=1"),
]
MODES: tuple[IndexerMode, ...] = ("exact", "fp8")
TOPK, ROOM = 8, 1024


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every selection is fused, by few programs."""
    if HERE:
        from keyeloop.model_backend.kernels import selecting
        from keyeloop.model_backend.kernels.jit import fused, scores, topk

        monkeypatch.setattr(selecting, "FUSED_TOKENS", 1)
        monkeypatch.setattr(selecting, "FUSED_WIDTH", 1)
        for module in (fused, scores, topk):
            monkeypatch.setattr(module, "PROGRAMS", 4)


def passing(task: Problem) -> list[int]:
    """How many places of each query pass its gate."""
    from keyeloop.model_backend.kernels.jit import fused

    out = torch.empty(len(task.rows), TOPK, dtype=torch.int32, device=DEVICE)
    width = task.table.shape[1]
    place = (task.table, task.rows, task.positions)
    passed = fused.select(task.index_q, task.weights, task.index_k, *place, TOPK, ROOM, width, out)
    return passed.tolist()


@pytest.mark.parametrize("mode", MODES)
def test_the_same_places_are_chosen(mode: IndexerMode) -> None:
    """Requests share tiles, one sees fewer than ``topk`` places, one fits the room; the long one's gate works."""
    task = problem(mode, (1100, 5, 40), (3, 2, 2), padding=1, whole_numbers=not GPU, device=DEVICE)
    task.weights.normal_(generator=torch.Generator(DEVICE).manual_seed(1))
    expected = task.select()
    assert torch.equal(task.select("triton", one_each=False), expected)
    counts = passing(task)
    assert all(TOPK <= count <= 700 for count in counts[:3])
    assert counts[5:7] == [39, 40]


def test_few_queries_at_a_time_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from keyeloop.model_backend.kernels import selecting

    task = problem("fp8", (90, 30), (11, 9), index_heads=2, device=DEVICE)
    monkeypatch.setattr(selecting, "FUSED_BYTES", 1)
    monkeypatch.setattr(selecting, "SCORE_BYTES", 7 * 4 * 96)
    assert torch.equal(task.select("triton", one_each=False), task.select())


def _ties(task: Problem) -> None:
    task.weights.zero_()


def _below_zero(task: Problem) -> None:
    task.weights.abs_().neg_().sub_(0.1)


def _not_a_number(task: Problem) -> None:
    task.weights[1] = torch.nan


def _higher_where_sampled(task: Problem) -> None:
    _scale_sample(task, 9.0)


def _lower_where_sampled(task: Problem) -> None:
    _scale_sample(task, 0.0)


def _scale_sample(task: Problem, factor: float) -> None:
    from keyeloop.model_backend.kernels.jit.ordering import sampled_places

    task.weights.abs_()
    slots = task.table[1, sampled_places(1100, 32).to(DEVICE)].long()
    task.index_k.values[slots] *= factor


@pytest.mark.parametrize(
    ("spoil", "missed"),
    [(_ties, 2), (_below_zero, 0), (_not_a_number, 1), (_higher_where_sampled, 0), (_lower_where_sampled, 2)],
)
def test_gates_that_miss_change_nothing(spoil: Callable[[Problem], None], missed: int) -> None:
    task = problem("exact", (1100,), (2,), index_heads=2, device=DEVICE)
    spoil(task)
    assert torch.equal(task.select("triton", one_each=False), task.select())
    assert sum(not TOPK <= count <= ROOM for count in passing(task)) >= missed


def test_scores_of_whole_numbers_go_to_the_lowest_place() -> None:
    task = problem("exact", (1100,), (1,), index_heads=2, whole_numbers=True, device=DEVICE)
    assert task.select("triton", one_each=False).tolist() == task.by_sorting()


def test_a_score_has_the_same_bits_in_every_tile() -> None:
    """What is listed is scored again and held to the same gate."""
    from keyeloop.model_backend.kernels.jit import scores as scoring

    for mode in MODES:
        task = problem(mode, (150,), (5,), index_heads=16, whole_numbers=not GPU, device=DEVICE)
        task.weights.normal_(generator=torch.Generator(DEVICE).manual_seed(1))
        found: list[Tensor] = []
        for one_each in (True, False):
            out = torch.zeros(5, 256, device=DEVICE)
            given = (task.index_q, task.weights, task.index_k, task.table, task.rows, task.positions)
            scoring.scores(*given, TOPK, out, one_each=one_each)
            found.append(out)
        seen = torch.arange(256, device=DEVICE) <= task.positions.unsqueeze(1)
        assert torch.equal(found[0][seen], found[1][seen])
        assert len(set(found[0][seen].tolist())) > 100
