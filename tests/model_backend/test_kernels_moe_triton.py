"""The mixture of experts in Triton against the torch reference: on a GPU, else in Triton's interpreter.

In the interpreter (``TRITON_INTERPRET=1``) bfloat16 products are wrong, so float32 and float16 stand for them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from keyeloop.model_backend.kernels import moe
from tests.model_backend.moe_problems import Mixture, mixture

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
HERE = find_spec("triton") is not None and (GPU or os.environ.get("TRITON_INTERPRET") == "1")
pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(not HERE, reason="needs the package triton, and a GPU or TRITON_INTERPRET=1"),
]
LIMITS = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 8e-3}
TYPES = tuple(LIMITS) if GPU else (torch.float32, torch.float16)


@pytest.fixture(autouse=True)
def _poisoned() -> Iterator[None]:
    """Memory that nobody wrote holds NaN and the largest numbers."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def error(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("tokens", "experts", "top", "hidden", "inter"),
    [(1, 8, 2, 64, 32), (1, 8, 8, 32, 16), (17, 5, 3, 40, 24), (64, 20, 1, 32, 16), (65, 3, 2, 48, 40)],
)
def test_equals_a_loop_in_float64(
    tokens: int, experts: int, top: int, hidden: int, inter: int, dtype: torch.dtype
) -> None:
    for renormalise in (True, False):
        task = mixture(
            tokens, experts=experts, top=top, hidden=hidden, inter=inter, dtype=dtype, device=DEVICE,
            renormalise=renormalise,
        )  # fmt: skip
        found = task.run("triton")
        assert error(found, _with_its_own_experts(task)) < LIMITS[dtype]


def _with_its_own_experts(task: Mixture) -> Tensor:
    """The reference in float64; where logits are rounded, with the experts that Triton chose among near ties."""
    from keyeloop.model_backend.kernels.jit import moe_route

    routing = moe_route.route(task.x, task.gate, task.top, task.renormalise, 16)
    logits, chosen = (task.x @ task.gate.t()).double(), routing.experts.long()
    lowest, highest = logits.gather(1, chosen).min(1).values, logits.scatter(1, chosen, -torch.inf).max(1).values
    assert (highest - lowest <= torch.finfo(task.x.dtype).eps * 2 * logits.abs().max()).all()
    weights = torch.softmax(logits, 1).gather(1, chosen)
    weights = weights / weights.sum(1, keepdim=True) if task.renormalise else weights
    assert error(routing.weights, weights) < LIMITS[task.x.dtype]
    return moe.weighted(task.x.double(), weights, chosen, task.w13, task.w2)


@pytest.mark.parametrize("tokens", [1, 5, 64, 150])
def test_the_same_experts_as_sorting_and_every_place_once(tokens: int) -> None:
    from keyeloop.model_backend.kernels.jit import moe_route

    task = mixture(tokens, experts=20, top=3, whole_numbers=True, device=DEVICE)
    if tokens > 3:
        task.x[1], task.x[2] = 0.0, torch.nan
    for rows in (16, 64):
        found = moe_route.route(task.x, task.gate, 3, True, rows)
        weights, chosen = moe.route(task.x, task.gate, 3)
        assert torch.equal(found.experts.long(), chosen)
        torch.testing.assert_close(found.weights, weights, rtol=1e-5, atol=1e-6, equal_nan=True)
        _check_places(found.place.cpu(), found.pairs.cpu(), found.block_expert.cpu(), int(found.used), chosen, rows)


def _check_places(place: Tensor, pairs: Tensor, block_expert: Tensor, used: int, chosen: Tensor, rows: int) -> None:
    """Expert after expert, in whole blocks, each expert's tokens in order."""
    expected: list[int] = []
    owners: list[int] = []
    for expert in range(20):
        own = (chosen.cpu().flatten() == expert).nonzero().flatten().tolist()
        own += [-1] * (-len(own) % rows)
        expected += own
        owners += [expert] * (len(own) // rows)
    assert used == len(owners) <= len(block_expert)
    assert block_expert[:used].tolist() == owners
    for index, pair in enumerate(expected):
        if pair >= 0:
            assert int(pairs[index]) == pair
            assert int(place.flatten()[pair]) == index


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("tokens", [40, 130])
def test_all_tokens_to_the_same_experts(tokens: int, dtype: torch.dtype) -> None:
    task = mixture(tokens, whole_numbers=True, dtype=dtype, device=DEVICE)
    task.gate.zero_()
    assert error(task.run("triton"), task.looped()) < LIMITS[dtype]


def test_every_tile_gives_the_same() -> None:
    from keyeloop.model_backend.kernels.jit import moe_layer
    from keyeloop.model_backend.kernels.jit.moe_layer import Plan, Tile

    task = mixture(70, hidden=40, inter=24, whole_numbers=True, dtype=torch.float16, device=DEVICE)
    expected = task.looped()
    for rows, joined, swapped, lasting, copied in (
        (16, True, False, 0, True), (32, False, True, 0, False), (16, True, True, 1, True),
        (16, False, False, 2, False),
    ):  # fmt: skip
        first = Tile(16, 32, 4, 2, joined=joined, swapped=swapped, lasting=lasting, copied=copied)
        plan = Plan(rows, first, Tile(32, 16, 4, 2, swapped=swapped, lasting=lasting, copied=copied))
        found = moe_layer.mixture_of_experts(task.x, task.gate, task.w13, task.w2, task.top, True, plan)
        assert error(found, expected) < LIMITS[torch.float16]


def test_many_tokens_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    from keyeloop.model_backend.kernels.jit import moe_layer

    task = mixture(50, whole_numbers=True, device=DEVICE)
    monkeypatch.setattr(moe_layer, "TOKENS_AT_ONCE", 20)
    assert error(task.run("triton"), task.looped()) < 1e-5


def test_sizes_that_the_copy_engine_cannot_take_go_to_torch() -> None:
    task = mixture(5, inter=10, device=DEVICE)
    assert torch.equal(task.run("triton"), task.run("reference"))


def test_one_bad_token_and_unread_experts() -> None:
    task = mixture(20, experts=64, whole_numbers=True, device=DEVICE)
    expected = task.run("triton")
    used = moe.route(task.x, task.gate, 2)[1].flatten().tolist()
    unused = sorted(set(range(2, 64)) - set(used))
    task.w13[unused] = torch.nan
    task.w2[unused] = torch.nan
    task.x[3] = torch.nan
    found = task.run("triton")
    rest = [token for token in range(20) if token != 3]
    assert found[3].isnan().all()
    assert torch.equal(found[rest], expected[rest])


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="needs a CUDA device")
@pytest.mark.parametrize("tokens", [1, 64, 300, 4096])
def test_repeats_are_the_same_bits_and_a_graph_follows_its_input(tokens: int) -> None:
    task = mixture(tokens, experts=128, top=8, hidden=512, inter=256, dtype=torch.bfloat16, device=DEVICE)
    expected = task.run("triton")
    assert error(expected, _with_its_own_experts(task)) < LIMITS[torch.bfloat16]
    for _ in range(20):
        assert torch.equal(task.run("triton"), expected)
    torch.use_deterministic_algorithms(False)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = task.run("triton")
    for _ in range(2):
        task.x.normal_()
        graph.replay()
        assert torch.equal(out, task.run("triton"))
