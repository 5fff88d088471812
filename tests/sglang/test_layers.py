"""One layer's choice of keys through SGLang's memory equals the reference's, in both number formats."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from keyeloop.model_backend.kernels import glue, ops
from keyeloop.model_backend.kernels.index_keys import IndexKeys
from keyeloop.model_backend.keye.indexer import Indexer, IndexerMode, score
from keyeloop.model_backend.keye.rotary import SectionedRotary
from keyeloop.model_backend.keye.selection import select
from tests.model_backend.keye_models import SMALL, attention, small_model

pytestmark = [pytest.mark.sglang, pytest.mark.timeout(300), pytest.mark.usefixtures("sglang_here")]
TOKENS, SLOTS, TOPK = 90, 128, 6


def positions_of(tokens: int) -> torch.Tensor:
    """Rope positions with a picture of 4 x 5 tokens in the middle."""
    text, rest = torch.arange(30).expand(3, -1), torch.arange(35, 35 + tokens - 50).expand(3, -1)
    picture = torch.cartesian_prod(torch.arange(1), torch.arange(4), torch.arange(5)).t() + 30
    return torch.cat([text, picture, rest], 1)


def quietly() -> Any:
    """The plugin's modules that need SGLang."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from keyeloop.model_backend.sglang.plugin import backend, layers, rotary
    return SimpleNamespace(backend=backend, layers=layers, rotary=rotary)


@pytest.mark.parametrize("mode", ("exact", "fp8"))
def test_the_same_inputs_choose_the_same_keys(mode: IndexerMode) -> None:
    plugin, x, positions = quietly(), torch.randn(TOKENS, SMALL.hidden_size), positions_of(TOKENS)
    indexer = attention(small_model(torch.float32), 1).sa_indexer
    _, turn = SectionedRotary(SMALL.rope_theta, [(16, SMALL.mrope_section), (32, SMALL.index_mrope_section)])(
        positions, torch.float32
    )
    scores = score(indexer.queries(x, turn, mode), indexer.keys(x, turn, mode))
    expected = select(scores, TOPK, torch.arange(1, TOKENS + 1))

    main, index = plugin.rotary.Rotary(SMALL)(positions, torch.float32)
    assert torch.equal(index.cos, turn.cos) and torch.equal(index.sin, turn.sin)
    assert main.cos.shape[-1] == SMALL.head_dim
    table = torch.randperm(SLOTS)[:TOKENS].int().view(1, -1)
    kept = IndexKeys.zeros(SLOTS, SMALL.indexer.head_dim, mode, torch.float32, "cpu")
    k, v = (torch.zeros(SLOTS, SMALL.num_key_value_heads, SMALL.head_dim) for _ in "kv")
    prepared = glue.prepare(_projected(indexer, x), _norms(indexer), main, index, k, v, kept, table[0])
    assert prepared.index_q is not None and prepared.index_weight is not None
    rows, places = torch.zeros(TOKENS).int(), torch.arange(TOKENS).int()
    found = ops.select(
        prepared.index_q, prepared.index_weight, kept, table, rows, places, TOPK, max_tokens=TOKENS
    )  # fmt: skip
    assert torch.equal(found.long(), expected)


def _projected(indexer: Indexer, x: torch.Tensor) -> glue.Projected:
    heads = SMALL.num_attention_heads + 2 * SMALL.num_key_value_heads
    return glue.Projected(torch.randn(len(x), heads * SMALL.head_dim), indexer.q_proj(x), indexer.k_proj(x))


def _norms(indexer: Indexer) -> glue.Norms:
    one = torch.ones(SMALL.head_dim)
    q_norm, k_norm = indexer.q_norm, indexer.k_norm
    return glue.Norms(one, one, q_norm.weight, k_norm.weight, k_norm.bias, SMALL.rms_norm_eps, k_norm.eps)


def test_where_everything_is_seen_places_are_all_and_made_once() -> None:
    plugin = quietly()
    extend = SimpleNamespace(
        req_pool_indices=torch.tensor([3]), extend_seq_lens=torch.tensor([4]), seq_lens_cpu=torch.tensor([6]),
        forward_mode=SimpleNamespace(is_extend=lambda: True),
    )  # fmt: skip
    rotations = plugin.rotary.Rotary(SMALL)(torch.arange(4), torch.float32)
    queries = plugin.backend.Queries.of(extend, torch.tensor([0, 1, 2, 5]), TOPK, rotations)
    assert queries.everything.tolist() == [
        [0, -1, -1, -1, -1, -1], [0, 1, -1, -1, -1, -1], [0, 1, 2, -1, -1, -1], [0, 1, 2, 3, 4, 5]
    ]  # fmt: skip
    assert plugin.backend.Queries.of(extend, torch.tensor([0, 1, 2, 5]), TOPK - 1, rotations).everything is None


def test_queries_of_a_batch_name_rows_and_places() -> None:
    plugin = quietly()
    extend = SimpleNamespace(
        req_pool_indices=torch.tensor([3, 1]), extend_seq_lens=torch.tensor([2, 3]),
        seq_lens_cpu=torch.tensor([7, 3]), forward_mode=SimpleNamespace(is_extend=lambda: True),
    )  # fmt: skip
    queries = plugin.backend.Queries.of(extend, torch.tensor([5, 6, 0, 1, 2]), TOPK, (None, None))
    assert queries.rows.tolist() == [3, 3, 1, 1, 1]
    assert queries.positions.tolist() == [5, 6, 0, 1, 2]
    assert (queries.max_tokens, queries.rows.dtype, queries.positions.dtype) == (7, torch.int32, torch.int32)
    decode = SimpleNamespace(
        req_pool_indices=torch.tensor([3, 1]), forward_mode=SimpleNamespace(is_extend=lambda: False)
    )
    queries = plugin.backend.Queries.of(decode, torch.tensor([7, 3]), TOPK, (None, None))
    assert (queries.rows.tolist(), queries.positions.tolist(), queries.max_tokens) == ([3, 1], [7, 3], None)


def test_joined_projections_are_the_same_numbers_in_the_same_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = quietly()
    layer = plugin.layers.ServedAttention.__new__(plugin.layers.ServedAttention)
    torch.nn.Module.__init__(layer)
    layer.qkv_proj = plugin.layers.QKVParallelLinear(
        SMALL.hidden_size, SMALL.head_dim, SMALL.num_attention_heads, SMALL.num_key_value_heads, bias=False,
        tp_rank=0, tp_size=1,
    )  # fmt: skip
    layer.sa_indexer, layer.joined, layer.widths = Indexer(SMALL), None, []
    torch.nn.init.normal_(layer.qkv_proj.weight)
    layer.join()
    assert layer.joined is None  # on a CPU, where weights may be packed
    x = torch.randn(5, SMALL.hidden_size)
    apart = layer.projected(x, True)
    monkeypatch.setenv(ops.ENVIRONMENT, "triton")
    layer.join()
    assert layer.joined is not None and apart.index_q is not None
    together = layer.projected(x, True)
    for one, two in (
        (apart.qkv, together.qkv),
        (apart.index_q, together.index_q),
        (apart.index_key, together.index_key),
    ):
        torch.testing.assert_close(one, two)
    assert layer.projected(x, False).index_q is None
    again = torch.randn(SMALL.num_key_value_heads * SMALL.head_dim, SMALL.hidden_size)
    layer.qkv_proj.weight_loader(layer.qkv_proj.weight, again, "v")
    torch.testing.assert_close(layer.projected(x, True).qkv[:, -len(again) :], x @ again.t())
