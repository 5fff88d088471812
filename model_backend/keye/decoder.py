"""The language model: grouped-query attention over indexer-chosen keys, and a mixture of experts, in every layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from keyeloop.model_backend.keye.cache import KVCache
from keyeloop.model_backend.keye.config import KeyeConfig
from keyeloop.model_backend.keye.indexer import Indexer, IndexerMode, IndexQueries, score, score_bytes
from keyeloop.model_backend.keye.moe import SparseMoe
from keyeloop.model_backend.keye.rotary import Rotation, SectionedRotary, rotate
from keyeloop.model_backend.keye.selection import select, select_one
from keyeloop.model_backend.keye.sparse import dense_attention, rows_at_once, sparse_attention

AttentionMode = Literal["sparse", "dense", "random"]
"""``sparse`` is the model; ``dense`` attends to everything; ``random`` replaces the indexer's choice (an ablation)."""


@dataclass(frozen=True)
class Pass:
    """What all layers of one forward pass share."""

    main: Rotation
    index: Rotation
    start: int
    """Tokens already in the cache."""
    mode: AttentionMode
    indexer: IndexerMode
    cache: KVCache | None


class Attention(nn.Module):
    """Attention of one layer: q/k RMSNorm a head, sectioned rope, softmax over the indexer's keys only."""

    def __init__(self, config: KeyeConfig, layer: int) -> None:
        super().__init__()
        hidden, dim = config.hidden_size, config.head_dim
        self.layer, self.dim = layer, dim
        self.topk, self.query_chunk = config.indexer.topk, config.indexer.query_chunk
        self.q_proj = nn.Linear(hidden, config.num_attention_heads * dim, bias=False)
        self.k_proj = nn.Linear(hidden, config.num_key_value_heads * dim, bias=False)
        self.v_proj = nn.Linear(hidden, config.num_key_value_heads * dim, bias=False)
        self.o_proj = nn.Linear(config.num_attention_heads * dim, hidden, bias=False)
        self.q_norm = nn.RMSNorm(dim, eps=config.rms_norm_eps)
        self.k_norm = nn.RMSNorm(dim, eps=config.rms_norm_eps)
        self.sa_indexer = Indexer(config)

    def forward(self, x: Tensor, step: Pass) -> Tensor:
        """``x`` [T, hidden], normalised; the same input feeds the projections and the indexer."""
        tokens = x.shape[0]
        q = rotate(self.q_norm(self.q_proj(x).view(tokens, -1, self.dim)), step.main)
        k = rotate(self.k_norm(self.k_proj(x).view(tokens, -1, self.dim)), step.main)
        v = self.v_proj(x).view(tokens, -1, self.dim)
        selects = step.mode != "dense" and step.start + tokens > self.topk
        if step.cache is not None:
            keys, values, index = step.cache.put(self.layer, k, v, self.sa_indexer.keys(x, step.index, step.indexer))
        else:
            keys, values = k, v
            index = self.sa_indexer.keys(x, step.index, step.indexer) if selects else x[:0]
        if not selects:
            return self._out(dense_attention(q, keys, values, step.start))
        queries = self.sa_indexer.queries(x, step.index, step.indexer)
        if tokens == 1 and step.mode == "sparse":
            chosen = select_one(score(queries, index), self.topk).unsqueeze(0)
            return self._out(sparse_attention(q, keys, values, chosen))
        return self._out(self._chosen(q, keys, values, queries, index, step))

    def _chosen(
        self, q: Tensor, keys: Tensor, values: Tensor, queries: IndexQueries, index: Tensor, step: Pass
    ) -> Tensor:
        """Rows that see at most ``topk`` places attend to all of them; later rows choose, a chunk at a time."""
        tokens = q.shape[0]
        full = min(tokens, max(0, self.topk - step.start))
        pieces = [dense_attention(q[:full], keys, values, step.start)] if full else []
        rows = rows_at_once(score_bytes(queries, index.shape[0]), self.query_chunk, q.device)
        for first in range(full, tokens, rows):
            stop = min(first + rows, tokens)
            seen = step.start + stop
            if step.mode == "random":
                scores = self._noise(stop - first, seen, step.start + first).to(q.device)
            else:
                scores = score(queries.rows(first, stop), index[:seen])
            lengths = torch.arange(step.start + first + 1, seen + 1, device=q.device)
            indices = select(scores, self.topk, lengths)
            pieces.append(sparse_attention(q[first:stop], keys, values, indices))
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def _noise(self, rows: int, keys: int, place: int) -> Tensor:
        generator = torch.Generator().manual_seed(1_000_003 * self.layer + place)
        return torch.rand(rows, keys, generator=generator)

    def _out(self, attended: Tensor) -> Tensor:
        return self.o_proj(attended.flatten(1))  # type: ignore[no-any-return]


class DecoderLayer(nn.Module):
    """Pre-norm attention and experts."""

    def __init__(self, config: KeyeConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = SparseMoe(config)

    def forward(self, x: Tensor, step: Pass) -> Tensor:
        """``x`` [T, hidden]."""
        x = x + self.self_attn(self.input_layernorm(x), step)
        return x + self.mlp(self.post_attention_layernorm(x))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Token embeddings, all layers and the final norm."""

    def __init__(self, config: KeyeConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        shapes = ((config.head_dim, config.mrope_section), (config.indexer.head_dim, config.index_mrope_section))
        self._rotary = SectionedRotary(config.rope_theta, shapes)

    def forward(
        self, x: Tensor, positions: Tensor, cache: KVCache | None, mode: AttentionMode, indexer: IndexerMode
    ) -> Tensor:
        """Hidden states [T, hidden] before the final norm, of embeddings [T, hidden] at ``positions`` [3, T]."""
        start = 0 if cache is None else cache.length
        if cache is not None:
            cache.reserve(x.shape[0])
        main, index = self._rotary(positions, x.dtype)
        step = Pass(main, index, start, mode, indexer, cache)
        for layer in self.layers:
            x = layer(x, step)
        if cache is not None:
            cache.advance(x.shape[0])
        return x
