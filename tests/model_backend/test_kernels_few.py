"""The best of a few long rows in one launch, integer for integer, on rows that lie to it too."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from keyeloop.model_backend.kernels import reference
from keyeloop.model_backend.keye.indexer import IndexerMode
from tests.model_backend.paged_problems import problem

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
HERE = find_spec("triton") is not None and (GPU or os.environ.get("TRITON_INTERPRET") == "1")
pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(not HERE, reason="needs the package triton, and a GPU or TRITON_INTERPRET=1"),
]
SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": lambda x: x,
    "one coarse bin": lambda x: 1 + 0.2 * x.sigmoid(),
    "equal": lambda x: torch.ones_like(x),
    "zeros of both signs": lambda x: torch.where(x > 2, x, torch.where(x > 0, 0.0, -0.0)),
    "negative": lambda x: -x.abs() - 1,
    "last bits": lambda x: 1 + (x * 9).round() * 2.0**-23,
    "bad values": lambda x: torch.where(x > 1, torch.nan, torch.where(x < -1, torch.inf, -torch.inf)),
    "all in one part": lambda x: x + 9 * (torch.arange(x.shape[1]) // 700 == 3),
    "only NaN": lambda x: torch.full_like(x, torch.nan),
}
WIDTH = 5000


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way on rows that the interpreter can afford."""
    if HERE:
        from keyeloop.model_backend.kernels.jit import few

        for name, value in {"BLOCK": 256, "SAMPLE": 512, "ROOM": 1024, "FILL": 256, "WARPS": 4}.items():
            monkeypatch.setattr(few, name, value)


def _same(scores: Tensor, positions: list[int], topk: int) -> None:
    from keyeloop.model_backend.kernels.jit import few

    place = torch.tensor(positions, dtype=torch.int32, device=DEVICE)
    found = torch.full((len(positions), topk), -7, dtype=torch.int32, device=DEVICE)
    zeros = torch.zeros(len(positions), dtype=torch.int32, device=DEVICE)
    few.top_positions(scores, place, topk, found, zeros)
    assert torch.equal(found, reference.top_positions(scores, place + 1, topk))
    assert not zeros.any()


@pytest.mark.parametrize("kind", list(SCORES))
@pytest.mark.parametrize("programs", [1, 16])
def test_equals_a_stable_sort(kind: str, programs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from keyeloop.model_backend.kernels.jit import few

    monkeypatch.setattr(few, "PROGRAMS", programs)
    scores = SCORES[kind](torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(5))).to(DEVICE)
    _same(scores, [WIDTH - 1, 1100, 1024], 64)
    _same(scores[:1], [WIDTH - 1], 1)


def test_short_rows_and_padding() -> None:
    scores = torch.randn(6, 1600, generator=torch.Generator().manual_seed(6)).to(DEVICE)
    _same(scores, [-1, 0, 62, 63, 64, 1023], 64)


@pytest.mark.parametrize("offset", [9.0, -9.0])
def test_a_misleading_sample_changes_nothing(offset: float) -> None:
    """Too few places reach the gate where the sample alone is high, too many where it alone is low."""
    scores = torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(7))
    step = -(-WIDTH // 512)
    number = torch.arange(512)
    sampled = number * step + ((number * 2654435761 % 2**32) >> 16) % step
    scores[0, sampled[sampled < WIDTH]] += offset
    _same(scores.to(DEVICE), [WIDTH - 1], 64)


@pytest.mark.parametrize("mode", ("exact", "fp8"))
def test_few_queries_choose_what_the_reference_chooses(mode: IndexerMode, monkeypatch: pytest.MonkeyPatch) -> None:
    from keyeloop.model_backend.kernels.jit import few, scores

    monkeypatch.setattr(few, "ROOM", 128)
    monkeypatch.setattr(few, "SAMPLE", 64)
    monkeypatch.setattr(scores, "PROGRAMS", 6)
    asked: list[int] = []
    way = few.top_positions

    def noting(given: Tensor, positions: Tensor, topk: int, out: Tensor, zeros: Tensor | None) -> None:
        asked.append(topk)
        way(given, positions, topk, out, zeros)

    monkeypatch.setattr(few, "top_positions", noting)
    task = problem(mode, (300, 20, 90), (1, 1, 1), padding=2, topk=16, device=DEVICE)
    assert torch.equal(task.select("triton"), task.select())
    assert asked == [16]
