"""Lightning indexer: one cheap score for every earlier token, from 16 small heads and one shared key.

``I[t, s] = D^-0.5 * sum_h w[t, h] * relu(q[t, h] . k[s])``, in float32; ``w`` is a raw linear output of either sign and
travels as the last ``H`` outputs of ``q_proj``. Mode ``exact`` computes this as written; mode ``fp8`` first spreads q
and k with a Hadamard transform and rounds both to e4m3 with power-of-two scales, as shipped. Scores only choose: they
never weight the attention. Source: technical report arXiv 2606.10651, and the serving code Kwai-Keye/sglang.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from keyeloop.model_backend.keye.config import KeyeConfig
from keyeloop.model_backend.keye.quantise import hadamard, quantise
from keyeloop.model_backend.keye.rotary import Rotation, rotate

IndexerMode = Literal["exact", "fp8"]
KEYS_AT_ONCE = 4096
"""Keys scored together; bounds memory, never changes a set but for rounding."""


@dataclass(frozen=True)
class IndexQueries:
    """What a token asks with: queries [T, H, D] and gates [T, H], both float32 or wider."""

    heads: Tensor
    gates: Tensor

    def rows(self, start: int, stop: int) -> IndexQueries:
        """The queries of some tokens."""
        return IndexQueries(self.heads[start:stop], self.gates[start:stop])


class Indexer(nn.Module):
    """``sa_indexer`` of one decoder layer."""

    def __init__(self, config: KeyeConfig) -> None:
        super().__init__()
        index, hidden = config.indexer, config.hidden_size
        self.num_heads, self.head_dim = index.num_heads, index.head_dim
        self.q_proj = nn.Linear(hidden, index.num_heads * (index.head_dim + 1), bias=False)
        self.k_proj = nn.Linear(hidden, index.head_dim, bias=False)
        self.q_norm = nn.RMSNorm(index.head_dim, eps=1e-6)
        self.k_norm = nn.LayerNorm(index.head_dim, eps=1e-6)

    def keys(self, x: Tensor, rotation: Rotation, mode: IndexerMode) -> Tensor:
        """Index keys [T, D] of hidden states [T, hidden], in ``x``'s type; rounded already in fp8 mode."""
        key = self.k_proj(x)
        exact = torch.promote_types(key.dtype, torch.float32)
        weight, bias = self.k_norm.weight.to(exact), self.k_norm.bias.to(exact)
        key = F.layer_norm(key.to(exact), (self.head_dim,), weight, bias, self.k_norm.eps).to(key.dtype)
        key = rotate(key.unsqueeze(1), rotation).squeeze(1)
        if mode == "exact":
            return key
        values, scale = quantise(hadamard(key))
        return (values.float() * scale).to(key.dtype)

    def queries(self, x: Tensor, rotation: Rotation, mode: IndexerMode) -> IndexQueries:
        """Index queries and gates of hidden states [T, hidden]."""
        packed = self.q_proj(x)
        exact = torch.promote_types(packed.dtype, torch.float32)
        width = self.num_heads * self.head_dim
        heads = self.q_norm(packed[:, :width].view(-1, self.num_heads, self.head_dim))
        heads, gates = rotate(heads, rotation), packed[:, width:].to(exact) * self.head_dim**-0.5
        if mode == "exact":
            return IndexQueries(heads.to(exact), gates)
        values, scale = quantise(hadamard(heads))
        return IndexQueries(values.to(exact), gates * scale.squeeze(-1))


def score(queries: IndexQueries, keys: Tensor) -> Tensor:
    """Scores [T, S] of every query against ``keys`` [S, D], in blocks of keys; causality is the caller's."""
    tokens, heads, dim = queries.heads.shape
    flat, gates = queries.heads.reshape(tokens * heads, dim), queries.gates.unsqueeze(1)
    blocks = []
    for block in torch.split(keys, KEYS_AT_ONCE):
        dots = (flat @ block.to(flat.dtype).t()).relu_()
        blocks.append(torch.bmm(gates, dots.view(tokens, heads, -1)).squeeze(1))
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, 1)


def score_bytes(queries: IndexQueries, keys: int) -> int:
    """Bytes of :func:`score`'s largest intermediate for one query."""
    return max(queries.heads.shape[1] * min(keys, KEYS_AT_ONCE), keys) * queries.heads.element_size()
