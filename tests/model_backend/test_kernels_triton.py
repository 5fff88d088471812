"""The Triton kernels against the torch reference: on a GPU where there is one, else in Triton's interpreter.

In the interpreter (``TRITON_INTERPRET=1``) bfloat16 products are wrong, so float32 and float16 stand for them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor

from keyeloop.model_backend.kernels import ops, reference
from keyeloop.model_backend.kernels.index_keys import IndexKeys
from keyeloop.model_backend.keye.indexer import IndexerMode
from tests.model_backend.paged_problems import bits, problem

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
HERE = find_spec("triton") is not None and (GPU or os.environ.get("TRITON_INTERPRET") == "1")
pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(not HERE, reason="needs the package triton, and a GPU or TRITON_INTERPRET=1"),
]
MODES: tuple[IndexerMode, ...] = ("exact", "fp8")
TYPES = (torch.float32, torch.float16, torch.bfloat16) if GPU else (torch.float32, torch.float16)


@pytest.fixture(autouse=True)
def _few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough to split work; each program takes a millisecond and more in the interpreter."""
    if HERE:
        from keyeloop.model_backend.kernels.jit import attention, scores, topk

        for module in (attention, scores, topk):
            monkeypatch.setattr(module, "PROGRAMS", 6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("tokens", "dim", "size"), [(1, 64, 1.0), (17, 32, 1e4), (40, 64, 1e-6), (3, 16, 0.0)])
def test_rounding_is_the_reference_to_the_bit(tokens: int, dim: int, size: float, dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(tokens)
    keys = (torch.randn(tokens, 3, dim, generator=random) * size).to(DEVICE, dtype)
    gates = torch.randn(tokens, 3, generator=random).to(DEVICE)
    slots = torch.randperm(tokens * 3 + 5, generator=random)[: tokens * 3].to(DEVICE)
    for mode in MODES:
        one, two = (IndexKeys.zeros(tokens * 3 + 5, dim, mode, dtype, DEVICE) for _ in range(2))
        ops.store_index_keys(one, keys.view(-1, dim), slots, kernels="reference")
        ops.store_index_keys(two, keys.view(-1, dim), slots.int(), kernels="triton")
        assert torch.equal(bits(one.values), bits(two.values))
        if mode == "fp8":
            assert torch.equal(_scales(one), _scales(two))
    expected = ops.index_queries(keys, gates, "fp8", kernels="reference")
    found = ops.index_queries(keys, gates, "fp8", kernels="triton")
    assert torch.equal(bits(expected[0]), bits(found[0]))
    assert torch.equal(expected[1], found[1])


def _scales(index: IndexKeys) -> Tensor:
    assert index.scales is not None
    return index.scales


@pytest.mark.parametrize("one_each", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_the_same_places_are_chosen(mode: IndexerMode, one_each: bool) -> None:
    for lengths, asked, heads in (
        ((1,), (1,), 4), ((8,), (8,), 16), ((9,), (3,), 4), ((7, 150, 1, 40), (7, 5, 1, 18), 4), ((70,), (2,), 3),
    ):  # fmt: skip
        task = problem(mode, lengths, asked, padding=2, index_heads=heads, device=DEVICE)
        assert torch.equal(task.select("triton", one_each=one_each), task.select())


@pytest.mark.parametrize("one_each", [True, False])
def test_ties_go_to_the_lowest_place(one_each: bool) -> None:
    task = problem("exact", (150, 20), (5, 4), padding=1, whole_numbers=True, device=DEVICE)
    assert len(set(task.scores(4).tolist())) < 100
    assert task.select("triton", one_each=one_each).tolist() == task.by_sorting()
    task.weights.zero_()
    assert task.select("triton", one_each=one_each)[4].tolist() == list(range(8))


@pytest.mark.parametrize("mode", MODES)
def test_compiling_ahead_leaves_memory_alone(mode: IndexerMode, monkeypatch: pytest.MonkeyPatch) -> None:
    from keyeloop.model_backend.kernels import warming

    monkeypatch.setenv(ops.ENVIRONMENT, "triton")
    monkeypatch.setattr(warming, "QUERIES", ((1, True), (64, False)))
    task = problem(mode, (40, 9), (3, 2), device=DEVICE)
    memory = [task.index_k.values, task.k, task.v, task.table]
    before = [bits(tensor).clone() for tensor in memory]
    took_s = warming.compile_ahead(
        task.index_k, task.k, task.v, task.table, heads=task.q.shape[1], index_heads=4, topk=task.topk
    )
    assert took_s > 0
    assert torch.equal(bits(memory[0])[1:], before[0][1:])
    for tensor, expected in zip(memory[1:], before[1:], strict=True):
        assert torch.equal(bits(tensor), expected)


def test_a_small_score_buffer_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from keyeloop.model_backend.kernels import selecting

    task = problem("fp8", (60, 30), (9, 11), device=DEVICE)
    expected = task.select("triton", one_each=True)
    monkeypatch.setattr(selecting, "SCORE_BYTES", 5 * 4 * 80)
    assert torch.equal(task.select("triton", one_each=True), expected)


SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": lambda x: x,
    "one coarse bin": lambda x: 1 + 0.2 * x.sigmoid(),
    "equal": lambda x: torch.ones_like(x),
    "zeros of both signs": lambda x: torch.where(x > 2, x, torch.where(x > 0, 0.0, -0.0)),
    "negative": lambda x: -x.abs() - 1,
    "last bits": lambda x: 1 + (x * 9).round() * 2.0**-23,
    "bad values": lambda x: torch.where(x > 1, torch.nan, torch.where(x < -1, torch.inf, -torch.inf)),
}


@pytest.mark.parametrize("kind", list(SCORES))
@pytest.mark.parametrize("programs", [1, 12])
@pytest.mark.parametrize("gated_rows", [1, 99])
def test_top_k_of_given_scores(kind: str, programs: int, gated_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long rows through the gate and by radix selection alone."""
    from keyeloop.model_backend.kernels.jit import topk

    monkeypatch.setattr(topk, "PROGRAMS", programs)
    monkeypatch.setattr(topk, "GATED_ROWS", gated_rows)
    scores = SCORES[kind](torch.randn(6, 5000, generator=torch.Generator().manual_seed(5))).to(DEVICE)
    positions = torch.tensor([-1, 62, 63, 64, 4095, 4999], dtype=torch.int32, device=DEVICE)
    for count, rows in ((64, slice(0, 6)), (1, slice(4, 6)), (2048, slice(4, 6))):
        _same_places(scores[rows], positions[rows], count)


def _same_places(scores: Tensor, positions: Tensor, count: int) -> None:
    from keyeloop.model_backend.kernels.jit import topk

    found = torch.full((len(positions), count), -7, dtype=torch.int32, device=DEVICE)
    topk.top_positions(scores, positions, count, found)
    assert torch.equal(found, reference.top_positions(scores, positions + 1, count))


@pytest.mark.parametrize("offset", [9.0, -9.0])
@pytest.mark.parametrize("programs", [1, 12])
def test_a_misleading_sample_changes_nothing(offset: float, programs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too few places pass the gate where the sample alone is high, too many where it alone is low."""
    from keyeloop.model_backend.kernels.jit import ordering, topk

    monkeypatch.setattr(topk, "PROGRAMS", programs)
    monkeypatch.setattr(topk, "GATED_ROWS", 1)
    passed: list[Tensor] = []
    select = topk.select

    def noting(*given: Any) -> None:
        passed.append(given[2])
        select(*given)

    monkeypatch.setattr(topk, "select", noting)
    scores = torch.randn(2, 9000, generator=torch.Generator().manual_seed(6)).to(DEVICE)
    scores[0, ordering.sampled_places(9000, 32).to(DEVICE)] += offset
    _same_places(scores, torch.tensor([8999, 8999], dtype=torch.int32, device=DEVICE), 64)
    missed, fits = passed[0].tolist()
    assert not 64 <= missed <= 1024
    assert 64 <= fits <= 1024


def test_short_and_long_lists_are_chosen_from(monkeypatch: pytest.MonkeyPatch) -> None:
    from keyeloop.model_backend.kernels.jit import ordering, topk

    monkeypatch.setattr(topk, "GATED_ROWS", 1)
    scores = torch.randn(2, 9000, generator=torch.Generator().manual_seed(8)).to(DEVICE)
    scores[1, ordering.sampled_places(9000, 32)[::2].to(DEVICE)] -= 9
    positions = torch.tensor([8999, 8999], dtype=torch.int32, device=DEVICE)
    passed = gate_counts(scores, positions, 2048)
    assert 2048 <= passed[0] <= 4096 < passed[1] <= 8192
    _same_places(scores, positions, 2048)


def gate_counts(scores: Tensor, positions: Tensor, count: int) -> list[int]:
    """How many places of each row pass its gate."""
    from keyeloop.model_backend.kernels.jit import gate, topk

    out = torch.empty(len(positions), count, dtype=torch.int32, device=DEVICE)
    return gate.choose_gated(scores, positions, count, topk.room_for(count), out).tolist()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(8, 2, 32), (8, 1, 128), (6, 2, 24)])
@pytest.mark.parametrize("programs", [1, 96])
def test_attention_equals_softmax(
    shape: tuple[int, int, int], dtype: torch.dtype, programs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With many programs the chosen places of a query are split and combined."""
    from keyeloop.model_backend.kernels.jit import attention

    monkeypatch.setattr(attention, "PROGRAMS", programs)
    task = problem("exact", (300, 1, 70), (3, 1, 2), topk=200, padding=2, shape=shape, dtype=dtype, device=DEVICE)
    chosen = task.select()
    chosen[0, 10:140] = -1
    found, limit = (
        task.attend(chosen, "triton"),
        {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}[dtype],
    )
    torch.testing.assert_close(found.double(), task.by_softmax(chosen), rtol=limit, atol=limit)
    assert found[-2:].abs().sum() == 0
    assert torch.equal(found, task.attend(chosen, "triton"))


def test_all_chosen_equals_dense_causal_attention() -> None:
    task = problem("fp8", (40,), (40,), topk=40, device=DEVICE)
    slots = task.table[1, :40].long()
    q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (task.q, task.k[slots], task.v[slots]))
    dense = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    found = task.attend(task.select("triton"), "triton")
    torch.testing.assert_close(found, dense.squeeze(0).transpose(0, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="needs a CUDA device")
@pytest.mark.parametrize("mode", MODES)
def test_a_captured_step_follows_its_lengths(mode: IndexerMode) -> None:
    task = problem(mode, (300, 20, 90), (1, 1, 1), padding=5, device=DEVICE)
    task.attend(task.select())
    graph = torch.cuda.CUDAGraph()
    task.attend(task.select("triton"), "triton")
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        chosen = task.select("triton")
        out = task.attend(chosen, "triton")
    for cut in (0, 5, 15):
        task.positions.sub_(cut).clamp_min_(-1)
        graph.replay()
        expected = task.select("triton")
        assert torch.equal(chosen, expected)
        assert torch.equal(out, task.attend(expected, "triton"))
