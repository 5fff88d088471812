"""One layer's choice of keys through SGLang's memory equals the reference's, in both number formats."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from keyeloop.model_backend.keye.indexer import IndexerMode, score
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
    from keyeloop.model_backend.kernels import ops
    from keyeloop.model_backend.kernels.index_keys import IndexKeys

    plugin, x, positions = quietly(), torch.randn(TOKENS, SMALL.hidden_size), positions_of(TOKENS)
    indexer = attention(small_model(torch.float32), 1).sa_indexer
    _, turn = SectionedRotary(SMALL.rope_theta, [(16, SMALL.mrope_section), (32, SMALL.index_mrope_section)])(
        positions, torch.float32
    )
    scores = score(indexer.queries(x, turn, mode), indexer.keys(x, turn, mode))
    expected = select(scores, TOPK, torch.arange(1, TOKENS + 1))

    served = plugin.layers.ServedIndexer(SMALL)
    served.load_state_dict(indexer.state_dict())
    main, index = plugin.rotary.Rotary(SMALL)(positions, torch.float32)
    assert torch.equal(index.cos, turn.cos) and torch.equal(index.sin, turn.sin)
    assert main.cos.shape[-1] == SMALL.head_dim
    queries = plugin.backend.Queries(torch.zeros(TOKENS).int(), torch.arange(TOKENS).int(), TOKENS, False)
    asked = served.ask(x, index, queries, TOPK)
    table = torch.randperm(SLOTS)[:TOKENS].int().view(1, -1)
    kept = IndexKeys.zeros(SLOTS, SMALL.indexer.head_dim, mode, torch.float32, "cpu")
    ops.store_index_keys(kept, asked.keys, table[0])
    index_q, weight = ops.index_queries(asked.heads, asked.gates, mode)
    found = ops.select(index_q, weight, kept, table, queries.rows, queries.positions, TOPK, max_tokens=TOKENS)
    assert torch.equal(found.long(), expected)


def test_where_everything_is_seen_no_query_is_computed() -> None:
    plugin = quietly()
    served = plugin.layers.ServedIndexer(SMALL)
    served.q_proj = None
    _, index = plugin.rotary.Rotary(SMALL)(torch.arange(4), torch.float32)
    queries = plugin.backend.Queries(torch.zeros(4).int(), torch.tensor([0, 1, 2, 5], dtype=torch.int32), 6, False)
    asked = served.ask(torch.randn(4, SMALL.hidden_size), index, queries, TOPK)
    assert asked.heads is None
    places = plugin.backend.all_places(queries.positions, 6)
    assert places.tolist() == [
        [0, -1, -1, -1, -1, -1], [0, 1, -1, -1, -1, -1], [0, 1, 2, -1, -1, -1], [0, 1, 2, 3, 4, 5]
    ]  # fmt: skip


def test_queries_of_a_batch_name_rows_and_places() -> None:
    plugin = quietly()
    extend = SimpleNamespace(
        req_pool_indices=torch.tensor([3, 1]), extend_seq_lens=torch.tensor([2, 3]),
        seq_lens_cpu=torch.tensor([7, 3]), forward_mode=SimpleNamespace(is_extend=lambda: True),
    )  # fmt: skip
    queries = plugin.backend.Queries.of(extend, torch.tensor([5, 6, 0, 1, 2]))
    assert queries.rows.tolist() == [3, 3, 1, 1, 1]
    assert queries.positions.tolist() == [5, 6, 0, 1, 2]
    assert (queries.max_tokens, queries.rows.dtype, queries.positions.dtype) == (7, torch.int32, torch.int32)
    decode = SimpleNamespace(
        req_pool_indices=torch.tensor([3, 1]), forward_mode=SimpleNamespace(is_extend=lambda: False)
    )
    queries = plugin.backend.Queries.of(decode, torch.tensor([7, 3]))
    assert (queries.rows.tolist(), queries.positions.tolist(), queries.max_tokens) == ([3, 1], [7, 3], None)
