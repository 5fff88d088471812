"""Sparse attention over paged memory in torch: against brute force in float64, and against the model's own layer."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from keyeloop.model_backend.kernels import ops, reference
from keyeloop.model_backend.kernels.index_keys import IndexKeys, bytes_per_token
from keyeloop.model_backend.keye.decoder import Pass
from keyeloop.model_backend.keye.indexer import IndexerMode
from keyeloop.model_backend.keye.rotary import SectionedRotary, rotate
from keyeloop.runtime.errors import ConfigError
from tests.model_backend.keye_models import attention, random_prompt, small_model
from tests.model_backend.paged_problems import bits, problem

MODES: tuple[IndexerMode, ...] = ("exact", "fp8")
EDGES = ((1,), (7,), (8,), (9,), (1, 7, 8, 9, 40))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_top_positions_equal_sorting(data: st.DataObject) -> None:
    keys, rows, topk = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 4)), data.draw(st.integers(1, 12))
    values = st.sampled_from([-torch.inf, -2.0, -0.0, 0.0, 0.5, 1.0, torch.inf, torch.nan])
    scores = [data.draw(st.lists(values, min_size=keys, max_size=keys)) for _ in range(rows)]
    lengths = data.draw(st.lists(st.integers(0, keys), min_size=rows, max_size=rows))
    found = reference.top_positions(torch.tensor(scores), torch.tensor(lengths), topk).tolist()
    for row, length, indices in zip(scores, lengths, found, strict=True):
        known = [value if value == value else -torch.inf for value in row[:length]]
        best = sorted(sorted(range(length), key=lambda place: (-known[place], place))[:topk])
        assert indices == best + [-1] * (topk - len(best))


def test_many_equal_scores_take_the_first() -> None:
    found = reference.top_positions(torch.zeros(1, 60_000), torch.tensor([60_000]), 2048)
    assert found[0].tolist() == list(range(2048))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("lengths", EDGES)
def test_select_equals_sorting(mode: IndexerMode, lengths: tuple[int, ...]) -> None:
    task = problem(mode, lengths, tuple(min(length, 5) for length in lengths), padding=2)
    assert task.select().tolist() == task.by_sorting()


@pytest.mark.parametrize("index_heads", [1, 3, 16])
def test_ties_go_to_the_lowest_place(index_heads: int) -> None:
    task = problem("exact", (50, 20, 90), (30, 20, 9), index_heads=index_heads, whole_numbers=True)
    scores = task.scores(len(task.rows) - 1)
    assert len(set(scores.tolist())) < scores.numel()
    assert task.select().tolist() == task.by_sorting()


@pytest.mark.parametrize("mode", MODES)
def test_without_gates_the_first_places_win(mode: IndexerMode) -> None:
    task = problem(mode, (40,), (40,))
    task.weights.zero_()
    assert task.select()[-1].tolist() == list(range(8))


@pytest.mark.parametrize("shape", [(8, 2, 32), (8, 1, 128), (4, 4, 16)])
def test_attention_equals_softmax(shape: tuple[int, int, int]) -> None:
    task = problem("exact", (30, 1, 9), (6, 1, 9), padding=3, shape=shape)
    chosen = task.select()
    found = task.attend(chosen)
    torch.testing.assert_close(found.double(), task.by_softmax(chosen), rtol=1e-5, atol=1e-6)
    assert found[-3:].abs().sum() == 0


def test_all_chosen_equals_dense_causal_attention() -> None:
    task = problem("exact", (24,), (24,), topk=24)
    slots = task.table[1, :24].long()
    q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (task.q, task.k[slots], task.v[slots]))
    dense = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(task.attend(task.select()), dense.squeeze(0).transpose(0, 1), rtol=1e-5, atol=1e-6)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    task = problem("fp8", (50, 20, 90), (30, 20, 9))
    whole = task.select()
    attended = task.attend(whole)
    monkeypatch.setattr(reference, "QUERIES_AT_ONCE", 4)
    assert torch.equal(task.select(), whole)
    assert torch.equal(task.attend(whole), attended)


def test_the_graph_path_chooses_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    task = problem("fp8", (50, 20, 90), (1, 1, 1), padding=2)
    expected = task.select()
    monkeypatch.setattr(reference, "_capturing", lambda _: True)
    assert torch.equal(task.select(), expected)


def test_nothing_asked_is_nothing_found() -> None:
    task = problem("exact", (5,), (0,))
    assert task.select().shape == (0, 8)
    assert task.attend(task.select()).shape == (0, 8, 32)


@pytest.mark.parametrize("mode", MODES)
def test_a_paged_layer_equals_the_model(mode: IndexerMode) -> None:
    """Prefill in two pieces and decode, slots scattered, against the model's attention over all tokens at once."""
    model, tokens, pieces = small_model(torch.float32), 60, (41, 17, 1, 1)
    layer, config = attention(model), model.config
    x, places = random_prompt(model, tokens)
    shapes = ((config.head_dim, config.mrope_section), (config.indexer.head_dim, config.index_mrope_section))
    main, index = SectionedRotary(config.rope_theta, shapes)(places, torch.float32)
    with torch.inference_mode():
        expected = layer(x, Pass(main, index, 0, "sparse", mode, None))
        heads = rotate(layer.q_norm(layer.q_proj(x).view(tokens, -1, layer.dim)), main)
        k = rotate(layer.k_norm(layer.k_proj(x).view(tokens, -1, layer.dim)), main)
        v = layer.v_proj(x).view(tokens, -1, layer.dim)
        indexer = layer.sa_indexer
        keys, asked = indexer.keys(x, index, "exact"), indexer.queries(x, index, "exact")
        slots = torch.randperm(80, generator=torch.Generator().manual_seed(1))[:tokens]
        memory = IndexKeys.zeros(80, config.indexer.head_dim, mode, torch.float32, "cpu")
        k_cache, v_cache = torch.zeros(80, *k.shape[1:]), torch.zeros(80, *v.shape[1:])
        table = slots.to(torch.int32).unsqueeze(0)
        found, start = [], 0
        for count in pieces:
            new = slice(start, start + count)
            k_cache[slots[new]], v_cache[slots[new]] = k[new], v[new]
            ops.store_index_keys(memory, keys[new], slots[new])
            index_q, weights = ops.index_queries(asked.heads[new], asked.gates[new], mode)
            row, position = torch.zeros(count, dtype=torch.int32), torch.arange(start, start + count, dtype=torch.int32)
            chosen = ops.select(index_q, weights, memory, table, row, position, config.indexer.topk)
            found.append(ops.sparse_attention(heads[new], k_cache, v_cache, table, row, chosen, layer.dim**-0.5))
            start += count
        torch.testing.assert_close(layer.o_proj(torch.cat(found).flatten(1)), expected, rtol=1e-4, atol=1e-5)
        stored = memory.values[slots].float() if memory.scales is None else _plain(memory, slots)
        assert torch.equal(stored, indexer.keys(x, index, mode).float())


def _plain(memory: IndexKeys, slots: torch.Tensor) -> torch.Tensor:
    values = bits(memory.values)[slots].view(memory.values.dtype).float()
    return values * cast(torch.Tensor, memory.scales)[slots].unsqueeze(1)


def test_who_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ops.ENVIRONMENT, raising=False)
    assert ops.choose(torch.device("cpu")) == "reference"
    assert ops.choose(torch.device("cuda")) == "triton"
    monkeypatch.setenv(ops.ENVIRONMENT, "reference")
    assert ops.choose(torch.device("cuda")) == "reference"
    assert ops.choose(torch.device("cuda"), "triton") == "triton"
    monkeypatch.setenv(ops.ENVIRONMENT, "fast")
    with pytest.raises(ConfigError, match="KEYE_KERNELS=fast: unknown; one of auto, reference, triton, cuda"):
        ops.choose(torch.device("cuda"))


def test_triton_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "_has_triton", lambda: False)
    with pytest.raises(ConfigError, match=r"need the package triton.*set KEYE_KERNELS=reference"):
        problem("exact", (5,), (1,)).select("triton")


def test_index_memory_says_its_mode() -> None:
    assert IndexKeys.zeros(4, 64, "fp8", torch.bfloat16, "cpu").mode == "fp8"
    assert IndexKeys.zeros(4, 64, "exact", torch.bfloat16, "cpu").mode == "exact"
    with pytest.raises(ConfigError, match="float8_e4m3fn with no scales"):
        IndexKeys(torch.zeros(4, 64, dtype=torch.uint8).view(torch.float8_e4m3fn))
    assert bytes_per_token(64, "fp8", torch.bfloat16) == 68
    assert bytes_per_token(64, "exact", torch.bfloat16) == 128
