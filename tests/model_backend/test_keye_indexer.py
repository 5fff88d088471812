"""The indexer's two number formats, and what selection by them means."""

from __future__ import annotations

import math

import pytest
import torch

from keyeloop.model_backend.keye.indexer import IndexerMode, IndexQueries, score
from keyeloop.model_backend.keye.quantise import hadamard, quantise
from keyeloop.model_backend.keye.rotary import SectionedRotary
from keyeloop.model_backend.keye.selection import select
from keyeloop.runtime.errors import ConfigError
from tests.model_backend.keye_models import SMALL, attention, random_prompt, small_model

E4M3 = sorted({math.ldexp(8 + m, e - 3) for e in range(-6, 9) for m in range(8)} | {m * 2.0**-9 for m in range(8)})
E4M3.remove(480.0)  # that code is NaN


def sylvester(size: int) -> torch.Tensor:
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while matrix.shape[0] < size:
        matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64), matrix)
    return matrix


def test_hadamard_is_the_sylvester_matrix_and_keeps_dot_products() -> None:
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    exact = x.double() @ sylvester(64) / 8
    assert torch.equal(hadamard(x), exact.to(torch.bfloat16))
    assert torch.allclose(exact @ exact.t(), x.double() @ x.double().t(), atol=1e-9)


def test_quantise_rounds_to_the_nearest_e4m3_with_a_power_of_two_scale() -> None:
    x = torch.randn(7, 64, generator=torch.Generator().manual_seed(1)) * torch.logspace(-6, 3, 7).unsqueeze(1)
    values, scale = quantise(x)
    for row, stored, s in zip(x.tolist(), values.float().tolist(), scale.flatten().tolist(), strict=True):
        amax = max(max(abs(v) for v in row), 1e-4)
        assert s == 2.0 ** math.ceil(math.log2(amax / 448))
        for value, kept in zip(row, stored, strict=True):
            distance = min(abs(abs(value) / s - code) for code in E4M3)
            assert abs(kept) in E4M3 and abs(abs(value) / s - abs(kept)) == distance


@pytest.mark.parametrize("exponent", [-9, 0, 5])
def test_an_exact_power_of_two_is_not_rounded_up(exponent: int) -> None:
    _, scale = quantise(torch.full((1, 64), 448.0 * 2.0**exponent))
    assert scale.item() == 2.0**exponent
    _, scale = quantise(torch.full((1, 64), math.nextafter(448.0, 500) * 2.0**exponent).double())
    assert scale.item() in (2.0**exponent, 2.0 ** (exponent + 1))
    _, scale = quantise(torch.zeros(1, 64))
    assert scale.item() == 2.0 ** math.ceil(math.log2(1e-4 / 448))


def queries_and_keys(mode: IndexerMode, tokens: int = 12) -> tuple[IndexQueries, torch.Tensor]:
    indexer = attention(small_model(torch.float32)).sa_indexer
    x, positions = random_prompt(small_model(torch.float32), tokens)
    rotation = SectionedRotary(1e4, ((32, SMALL.index_mrope_section),))(positions, torch.float32)[0]
    with torch.no_grad():
        return indexer.queries(x, rotation, mode), indexer.keys(x, rotation, mode)


def test_fp8_scores_are_those_of_the_published_formula() -> None:
    """s_k * sum_h (w * s_q * D^-0.5) * relu(q8 . k8), with the scales kept apart."""
    plain, plain_keys = queries_and_keys("exact")
    rounded, rounded_keys = queries_and_keys("fp8")
    q8, s_q = quantise(hadamard(plain.heads))
    k8, s_k = quantise(hadamard(plain_keys))
    gates = plain.gates.double() * s_q.squeeze(-1).double()
    dots = torch.einsum("thd,sd->ths", q8.double(), k8.double()).relu()
    expected = torch.einsum("th,ths,s->ts", gates, dots, s_k.squeeze(-1).double())
    assert torch.allclose(score(rounded, rounded_keys).double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(rounded_keys.bfloat16().float(), rounded_keys)


def test_exact_scores_are_float32_whatever_the_type() -> None:
    plain, keys = queries_and_keys("exact")
    wanted = torch.einsum("th,ths->ts", plain.gates, torch.einsum("thd,sd->ths", plain.heads, keys).relu())
    assert torch.allclose(score(plain, keys), wanted, atol=1e-5)
    assert score(plain, keys.bfloat16()).dtype == torch.float32


def test_fp8_sets_nearly_equal_exact_sets() -> None:
    generator = torch.Generator().manual_seed(0)
    heads, keys = torch.randn(8, 16, 64, generator=generator), torch.randn(3000, 64, generator=generator)
    gates = torch.randn(8, 16, generator=generator)
    q8, s_q = quantise(hadamard(heads))
    k8, s_k = quantise(hadamard(keys))
    lengths = torch.full((8,), 3000)
    exact = select(score(IndexQueries(heads, gates), keys), 2048, lengths)
    fp8 = select(score(IndexQueries(q8.float(), gates * s_q.squeeze(-1)), k8.float() * s_k), 2048, lengths)
    shared = [len(set(a) & set(b)) / 2048 for a, b in zip(exact.tolist(), fp8.tolist(), strict=True)]
    assert min(shared) > 0.98
    assert max(shared) < 1.0, "the formats differ at the boundary; equal sets mean that nothing was rounded"


def test_padding_heads_and_dimensions_changes_no_score() -> None:
    generator = torch.Generator().manual_seed(0)
    heads, gates = (
        torch.randn(3, 16, 64, generator=generator).double(),
        torch.randn(3, 16, generator=generator).double(),
    )
    keys = torch.randn(50, 64, generator=generator).double()
    wide_heads, wide_gates = torch.zeros(3, 32, 128).double(), torch.zeros(3, 32).double()
    wide_heads[:, :16, :64], wide_gates[:, :16] = heads, gates
    wide_keys = torch.nn.functional.pad(keys, (0, 64))
    wide = score(IndexQueries(wide_heads, wide_gates), wide_keys)
    assert torch.allclose(wide, score(IndexQueries(heads, gates), keys), atol=1e-12)


def test_one_token_past_topk_drops_the_lowest_score() -> None:
    plain, keys = queries_and_keys("exact", tokens=12)
    scores = score(plain, keys)[11:]
    dropped = set(range(12)) - set(select(scores.clone(), 11, torch.tensor([12]))[0].tolist())
    assert dropped == {max(place for place in range(12) if scores[0, place] == scores[0].min())}


def test_fp8_needs_heads_that_are_a_power_of_two_up_to_64() -> None:
    with pytest.raises(ConfigError, match="mode exact"):
        hadamard(torch.zeros(1, 48))
    with pytest.raises(ConfigError, match="mode exact"):
        quantise(torch.zeros(1, 128))


def test_main_and_index_rope_have_their_own_frequencies() -> None:
    config = SMALL
    positions = torch.tensor([[3], [5], [9]])
    shapes = ((config.head_dim, config.mrope_section), (config.indexer.head_dim, config.index_mrope_section))
    main, index = SectionedRotary(config.rope_theta, shapes)(positions, torch.float64)
    for rotation, dim, sections in ((main, 16, (2, 3, 3)), (index, 32, (4, 6, 6))):
        axes = [axis for axis, size in enumerate(sections) for _ in range(size)]
        angles = [(3, 5, 9)[axis] * 1e4 ** (-2 * i / dim) for i, axis in enumerate(axes)]
        assert torch.allclose(rotation.cos[0, 0], torch.tensor([math.cos(a) for a in angles * 2]).double())
        assert torch.allclose(rotation.sin[0, 0, dim // 2 :], torch.tensor([math.sin(a) for a in angles]).double())
