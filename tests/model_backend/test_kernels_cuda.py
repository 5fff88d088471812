"""The kernels in CUDA C++: on the host, thread by thread, and on a GPU of theirs beside Triton's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from keyeloop.model_backend.kernels import ops, reference
from keyeloop.model_backend.kernels.cuda import compiled
from tests.model_backend.cuda_on_cpu import built
from tests.model_backend.paged_problems import Problem, problem

on_host = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
WALK = {"TILES": 2, "STAGES": 4, "FENCED": 0}
QUERIES = 16


def scored(task: Problem, folder: Path, *, step: int = 1, less: int = 0, gates: Tensor | None = None) -> Tensor:
    """Scores by place, or bits in words of 16, as three programs a tile of queries leave them."""
    macros = WALK | {"STEP": step, "LESS": less, "MARK": int(gates is not None)}
    run = built("hopper.cu scoring.cu", "score_keys", folder, **macros)
    tokens, width = len(task.rows), task.table.shape[1] // 64 * 64 + 64
    out = torch.full((tokens, width), torch.nan) if gates is None else torch.zeros(tokens, width // 16).short()
    given = (task.index_q, task.weights, task.index_k.values, task.index_k.scales, task.table, task.rows)
    run((-(-tokens // QUERIES), 3), 128, *given, task.positions, task.weights if gates is None else gates, out, tokens,
        task.topk, task.table.stride(0), 64, out.stride(0))  # fmt: skip
    return out


@pytest.fixture(scope="module")
def task() -> Problem:
    """A tile of one request, and one that three share, with queries that ask nothing and one that takes all it sees."""
    return problem("fp8", (700, 90, 8, 130), (17, 3, 1, 4), padding=2, index_heads=16)


@on_host
@pytest.mark.parametrize(("step", "less"), [(1, 0), (1, 6), (4, 0)])
def test_scores_are_those_of_float64(task: Problem, step: int, less: int, tmp_path: Path) -> None:
    found = scored(task, tmp_path, step=step, less=less)
    for query, position in enumerate(task.positions.tolist()):
        number = torch.arange(position // step + 1)
        places = number * step + ((number * 2654435761 % 2**32) >> 16) % step
        places = places[places <= position]
        if position < task.topk:
            assert found[query].isnan().all()
        else:
            expected = task.scores(query)[places]
            assert torch.allclose(found[query, : len(places)].double(), expected, rtol=1e-5, atol=1e-4)
            assert found[query, len(places) :].isnan().all()


@on_host
def test_marks_say_what_reaches_the_gate_and_the_best_are_chosen(task: Problem, tmp_path: Path) -> None:
    scores = scored(task, tmp_path)
    seen = torch.arange(scores.shape[1]) <= task.positions.unsqueeze(1)
    seen &= (task.positions >= task.topk).unsqueeze(1)
    gates = torch.stack(
        [row[own].median() if own.any() else torch.zeros(()) for row, own in zip(scores, seen, strict=True)]
    )
    marks = scored(task, tmp_path, gates=gates)
    bits = (marks.unsqueeze(-1) >> torch.arange(16) & 1).bool().flatten(1)
    assert torch.equal(bits, seen & (scores >= gates.unsqueeze(1)))

    macros = {"THREADS": 256, "PROGRAMS": 1, "STAGES": 3, "FENCED": 0, "ROOM": 512}
    finish = built("hopper.cu ranking.cu finish.cu", "finish_rows", tmp_path, **macros)
    tokens = len(task.rows)
    out, passed = torch.full((tokens, task.topk), -7, dtype=torch.int32), torch.full((tokens,), -7, dtype=torch.int32)
    words = marks.view(torch.int32)
    given = (task.index_q, task.weights, task.index_k.values, task.index_k.scales, task.table, task.rows)
    finish((tokens, 1), 256, *given, task.positions, gates, words, passed, out, task.topk, task.table.stride(0), 64,
           words.stride(0))  # fmt: skip
    asks = task.positions >= task.topk
    assert torch.equal(passed[asks], bits.sum(1)[asks].int())
    assert torch.equal(out, reference.top_positions(scores, task.positions + 1, task.topk))


@on_host
def test_rows_are_chosen_from_exactly(tmp_path: Path) -> None:
    """Ties, infinities, no numbers, zeros of both signs, rows of every length; what missed is told and left alone."""
    width, topk, room = 512, 100, 384
    choose = built(
        "ranking.cu choice.cu", "choose_rows", tmp_path, THREADS=64, PROGRAMS=1, ROOM=room, SAMPLE=64, STEP=8
    )
    scores = torch.randn(20, width, generator=torch.Generator().manual_seed(1))
    scores[1] = (scores[1] * 3).round()
    scores[2] -= 1000
    scores[3, ::7] = torch.inf
    scores[4, ::9] = torch.nan
    scores[5] = torch.where(scores[5] < 1.2, -0.0, 0.0)
    lengths = torch.tensor([512] * 6 + [0, 1, 99, 100, 101, 383, 384, 385, 386, 509, 510, 511, 512, 512])
    positions = (lengths - 1).int()
    out, passed = torch.full((20, topk), -7, dtype=torch.int32), torch.full((20,), -7, dtype=torch.int32)
    choose((20, 1), 64, scores, positions, passed, out, width, topk, width // 32)
    expected = reference.top_positions(scores, positions + 1, topk)
    missed = (lengths > topk) & ((passed < topk) | (passed > room))
    assert torch.equal(out[~missed], expected[~missed])
    assert (out[missed] == -7).all()
    assert missed.tolist() == [False] * 5 + [True] + [False] * 14


def test_they_serve_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEYE_KERNELS", raising=False)
    assert not compiled.wanted()
    monkeypatch.setenv("KEYE_KERNELS", "cuda")
    assert compiled.wanted()
    assert ops.choose(torch.device("cpu")) == "reference"
    assert ops.choose(torch.device("cuda")) == "triton"


@pytest.mark.gpu
@pytest.mark.parametrize("less", [0, 6])
def test_a_gpu_chooses_as_triton_does(less: int) -> None:
    from keyeloop.model_backend.kernels.cuda import scoring

    if not torch.cuda.is_available() or not compiled.available(0):
        pytest.skip("needs a Hopper GPU")
    from keyeloop.model_backend.kernels import selecting
    from keyeloop.model_backend.kernels.jit.scores import Tile

    task = problem("fp8", (9000, 300, 2500), (150, 7, 3), topk=256, padding=1, index_heads=16, device="cuda")
    given = (task.index_q, task.weights, task.index_k, task.table, task.rows, task.positions, task.topk)
    expected, found = (torch.full((161, task.topk), -7, dtype=torch.int32, device="cuda") for _ in range(2))
    selecting.select_fused(*given, 9008, expected, tile=Tile(16, 64, 4, 5))
    selecting.select_fused(*given, 9008, found, tile=scoring.Walk(less=less))
    assert torch.equal(found, expected)
