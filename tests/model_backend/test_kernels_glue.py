"""Glue in one launch against torch and float64: on a GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

import os
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from keyeloop.model_backend.kernels import glue, ops
from keyeloop.model_backend.kernels.index_keys import IndexKeys
from keyeloop.model_backend.keye.indexer import IndexerMode
from keyeloop.model_backend.keye.quantise import hadamard, quantise
from keyeloop.model_backend.keye.rotary import Rotation, SectionedRotary
from tests.model_backend.paged_problems import bits

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
HERE = find_spec("triton") is not None and (GPU or os.environ.get("TRITON_INTERPRET") == "1")
ON_TRITON = [
    pytest.mark.triton,
    pytest.mark.skipif(not HERE, reason="needs the package triton, and a GPU or TRITON_INTERPRET=1"),
]
KERNELS = ["reference", pytest.param("triton", marks=ON_TRITON)]
MODES: tuple[IndexerMode, ...] = ("exact", "fp8")
TYPES = (torch.float32, torch.float16, torch.bfloat16)
CLOSE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
SLOTS = 40


class Layer:
    """Random projections of some tokens, and memory filled with NaN."""

    def __init__(
        self, mode: IndexerMode, dtype: torch.dtype, tokens: int = 5, heads: int = 6, kv_heads: int = 3, dim: int = 16,
        index_heads: int = 3, index_dim: int = 32, size: float = 1.0,
    ) -> None:  # fmt: skip
        random = torch.Generator().manual_seed(tokens + heads)

        def values(*shape: int) -> Tensor:
            return (torch.randn(*shape, generator=random) * size).to(DEVICE, dtype)

        self.heads, self.kv_heads, self.dim, self.index_heads, self.index_dim = (
            heads, kv_heads, dim, index_heads, index_dim,
        )  # fmt: skip
        widths = [(heads + 2 * kv_heads) * dim, index_heads * (index_dim + 1), index_dim]
        self.projected = glue.Projected(*torch.split(values(tokens, sum(widths)), widths, 1))
        q, k, index_q, index_k, bias = (1 + values(n) / 9 / size for n in (dim, dim, *(index_dim,) * 3))
        self.norms = glue.Norms(q, k, index_q, index_k, bias, 1e-5, 1e-6)
        sections = [(n, (n // 8, n // 8, n // 2 - n // 4)) for n in (dim, index_dim)]
        turns = SectionedRotary(1e4, sections)(torch.randint(0, 9000, (3, tokens), generator=random), dtype)
        self.main, self.index = (Rotation(turn.cos.to(DEVICE), turn.sin.to(DEVICE)) for turn in turns)
        self.slots = torch.randperm(SLOTS, generator=random)[:tokens].to(DEVICE)
        self.caches = [torch.full((SLOTS, kv_heads, dim), torch.nan, dtype=dtype, device=DEVICE) for _ in "kv"]
        self.index_k = IndexKeys.zeros(SLOTS, index_dim, mode, dtype, DEVICE)
        self.index_k.values.view(torch.uint8).fill_(0x7F)

    def prepare(self, kernels: ops.Kernels) -> glue.Prepared:
        """Into this memory."""
        k, v = self.caches
        return glue.prepare(
            self.projected, self.norms, self.main, self.index, k, v, self.index_k, self.slots, kernels=kernels
        )

    def memory(self) -> list[Tensor]:
        """Keys, values, index keys as numbers, in the order of tokens."""
        index = self.index_k.values.view(torch.uint8)[self.slots].view(self.index_k.values.dtype).double()
        if self.index_k.scales is not None:
            index *= self.index_k.scales[self.slots].double().unsqueeze(1)
        return [*(cache[self.slots].double() for cache in self.caches), index]

    def in_float64(self, mode: IndexerMode) -> list[Tensor]:
        """Query heads, keys, values, index keys, index queries, gates: rounded in mode fp8 alone."""
        qkv, packed, key = (
            x.double() for x in (self.projected.qkv, _there(self.projected.index_q), self.projected.index_key)
        )
        main, index = (Rotation(turn.cos.double(), turn.sin.double()) for turn in (self.main, self.index))
        q, k, v = torch.split(qkv.view(len(qkv), -1, self.dim), [self.heads, self.kv_heads, self.kv_heads], 1)
        width = self.index_heads * self.index_dim
        asked, gates = packed[:, :width].view(len(qkv), self.index_heads, -1), packed[:, width:] * self.index_dim**-0.5
        spread = (key.var(-1, correction=0, keepdim=True) + self.norms.index_eps).sqrt()
        key = (key - key.mean(-1, keepdim=True)) / spread
        key = key * self.norms.index_k.double() + self.norms.index_k_bias.double()
        found = [
            _turn(_rms(q, self.norms.q, self.norms.eps), main), _turn(_rms(k, self.norms.k, self.norms.eps), main), v,
            _turn(key.unsqueeze(1), index).squeeze(1),
            _turn(_rms(asked, self.norms.index_q, self.norms.index_eps), index), gates,
        ]  # fmt: skip
        if mode == "fp8":
            for number in (3, 4):
                codes, scale = quantise(hadamard(found[number]))
                found[number] = codes.double() * scale.double()
        return found


def _there(x: Tensor | None) -> Tensor:
    assert x is not None
    return x


def _rms(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight.double()


def _turn(x: Tensor, rotation: Rotation) -> Tensor:
    first, second = x.chunk(2, -1)
    cos, sin = rotation.cos.chunk(2, -1)[0], rotation.sin.chunk(2, -1)[1]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


SHAPES = [
    {"tokens": 1, "heads": 32, "kv_heads": 4, "dim": 128, "index_heads": 16, "index_dim": 64},
    {"tokens": 5},
    {"tokens": 7, "heads": 20, "kv_heads": 1, "dim": 8, "index_heads": 4, "index_dim": 64, "size": 30.0},
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("kernels", KERNELS)
def test_equals_float64_within_rounding(kernels: ops.Kernels, dtype: torch.dtype, shape: dict[str, int]) -> None:
    layer = Layer("exact", dtype, **shape)
    prepared = layer.prepare(kernels)
    found = [prepared.q, *layer.memory(), _there(prepared.index_q), _there(prepared.index_weight)]
    for one, expected in zip(found, layer.in_float64("exact"), strict=True):
        size = expected.abs().max()
        torch.testing.assert_close(one.double(), expected, rtol=0, atol=float(CLOSE[dtype] * size))
    others = torch.ones(SLOTS, dtype=torch.bool)
    others[layer.slots.cpu()] = False
    assert layer.caches[0][others].isnan().all() and layer.caches[1][others].isnan().all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kernels", KERNELS)
def test_fp8_rounds_what_exact_keeps(kernels: ops.Kernels, shape: dict[str, int]) -> None:
    """The codes and scales are those of the model's own rounding of what mode exact gives, to the bit."""
    exact, rounded = (Layer(mode, torch.float32, **shape) for mode in MODES)
    plain, found = exact.prepare(kernels), rounded.prepare(kernels)
    keys, scales = quantise(hadamard(exact.index_k.values[exact.slots]))
    assert torch.equal(bits(rounded.index_k.values)[rounded.slots], bits(keys))
    assert torch.equal(_there(rounded.index_k.scales)[rounded.slots], scales.squeeze(-1))
    heads, scales = quantise(hadamard(_there(plain.index_q)))
    assert torch.equal(bits(_there(found.index_q)), bits(heads))
    assert torch.equal(_there(found.index_weight), _there(plain.index_weight) * scales.squeeze(-1))
    others = torch.ones(SLOTS, dtype=torch.bool)
    others[rounded.slots.cpu()] = False
    assert (bits(rounded.index_k.values)[others] == 0x7F).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kernels", KERNELS)
def test_where_nothing_is_chosen_no_query_is_made(kernels: ops.Kernels, mode: IndexerMode) -> None:
    whole, less = (Layer(mode, torch.float32) for _ in range(2))
    less.projected = replace(less.projected, index_q=None)
    expected, found = whole.prepare(kernels), less.prepare(kernels)
    assert found.index_q is None and found.index_weight is None
    assert torch.equal(expected.q, found.q)
    for one, two in zip(whole.memory(), less.memory(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("kernels", KERNELS)
def test_no_tokens_are_no_work(kernels: ops.Kernels) -> None:
    layer = Layer("exact", torch.float32, tokens=0)
    assert layer.prepare(kernels).q.shape == (0, 6, 16)


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_size_that_is_no_power_of_two_is_computed_too(kernels: ops.Kernels) -> None:
    layer = Layer("exact", torch.float32, dim=24)
    torch.testing.assert_close(layer.prepare(kernels).q.double(), layer.in_float64("exact")[0], rtol=1e-4, atol=1e-5)
