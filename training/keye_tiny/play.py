"""Greedy decoding of many episodes in lockstep: one padded cache, attention over exactly what the runtime selects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor

from training.keye_tiny.model import DecoderLayer, KeyeTiny, select_keys
from training.keye_tiny.rotary import rope_of

Selection = Literal["indexer", "random", "dense"]


class Layer(NamedTuple):
    """One layer's cache: keys and values [rows, slots, kv_heads, d], index keys [rows, slots, D]."""

    keys: Tensor
    values: Tensor
    index_keys: Tensor


@dataclass
class Cache:
    """Caches of a set of rows; slot ``i`` of a row holds its token ``i``, what lies behind its length is stale."""

    layers: list[Layer]

    @staticmethod
    def empty(model: KeyeTiny, rows: int, slots: int, device: torch.device) -> Cache:
        """Room for ``slots`` tokens in each of ``rows`` rows, float32."""
        shape = model.shape
        return Cache(
            [
                Layer(
                    torch.zeros(rows, slots, shape.kv_heads, shape.head_dim, device=device),
                    torch.zeros(rows, slots, shape.kv_heads, shape.head_dim, device=device),
                    torch.zeros(rows, slots, shape.index_dim, device=device),
                )
                for _ in range(shape.layers)
            ]
        )


@torch.no_grad()
def extend(
    model: KeyeTiny,
    cache: Cache,
    rows: Tensor,
    starts: Tensor,
    x: Tensor,
    positions: Tensor,
    counts: Tensor,
    selection: Selection = "indexer",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Run new tokens through the cached network; returns the next token's logits of every row [r, vocab].

    ``rows`` [r] of the cache, ``starts`` [r] slots of their first new token, ``x`` [r, n, hidden] embeddings,
    ``positions`` [3, r, n], ``counts`` [r] new tokens of each row (the rest is padding).
    """
    shape = model.shape
    count = x.shape[1]
    slots = starts[:, None] + torch.arange(count, device=x.device)
    limit = min(int(slots.max()) + 1, cache.layers[0].keys.shape[1])
    slots = slots.clamp(max=cache.layers[0].keys.shape[1] - 1)
    causal = torch.arange(limit, device=x.device) <= slots.unsqueeze(-1)
    rope = rope_of(positions, shape)
    valid = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    for module, held in zip(model.model.layers, cache.layers, strict=True):
        layer = cast(DecoderLayer, module)
        normed = layer.input_layernorm(x)
        attention = layer.self_attn
        q, k, v = attention.project(normed, rope)
        held.keys[rows[:, None], slots] = k.transpose(1, 2)
        held.values[rows[:, None], slots] = v.transpose(1, 2)
        held.index_keys[rows[:, None], slots] = attention.sa_indexer.keys(normed, rope.index_cos, rope.index_sin)
        mask = causal
        if selection != "dense" and limit > shape.topk:
            if selection == "random":
                scores = torch.rand(causal.shape, device=x.device, generator=generator)
            else:
                index_keys = held.index_keys[rows, :limit]
                scores = attention.sa_indexer.scores(normed, rope.index_cos, rope.index_sin, index_keys)
            mask = select_keys(scores, causal, shape.topk)
        out = _attend(q, held.keys[rows, :limit], held.values[rows, :limit], mask)
        x = x + attention.o_proj(out.transpose(1, 2).flatten(-2))
        x = x + layer.mlp(layer.post_attention_layernorm(x), valid)[0]
    last = x[torch.arange(len(x), device=x.device), counts - 1]
    logits: Tensor = model.lm_head(model.model.norm(last))
    return logits


def _attend(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Masked attention [r, heads, n, d]; the heads of a group share their keys [r, slots, kv_heads, d] unrepeated."""
    rows, heads, count, width = q.shape
    grouped = q.reshape(rows, keys.shape[2], -1, width)
    scores = torch.matmul(grouped, keys.permute(0, 2, 3, 1)) * width**-0.5
    scores = scores.view(rows, heads, count, -1).masked_fill_(~mask.unsqueeze(1), float("-inf"))
    weights = scores.softmax(-1).view(rows, keys.shape[2], -1, keys.shape[1])
    return torch.matmul(weights, values.transpose(1, 2)).view(rows, heads, count, width)


@torch.no_grad()
def decode(
    model: KeyeTiny,
    cache: Cache,
    rows: Tensor,
    lengths: Tensor,
    next_positions: Tensor,
    logits: Tensor,
    end_id: int,
    max_tokens: int,
    selection: Selection = "indexer",
    generator: torch.Generator | None = None,
) -> list[list[int]]:
    """Greedy continuation of every row until ``end_id`` (not returned) or ``max_tokens``.

    ``lengths`` [r] tokens in the cache, ``next_positions`` [r] the position of the next token on all three axes.
    """
    written: list[list[int]] = [[] for _ in range(len(rows))]
    alive = torch.arange(len(rows), device=rows.device)
    for _ in range(max_tokens):
        chosen = logits.argmax(-1)
        going = chosen != end_id
        for place, token in zip(alive[going].tolist(), chosen[going].tolist(), strict=True):
            written[place].append(token)
        alive, chosen = alive[going], chosen[going]
        if not len(alive) or int(lengths[alive].max()) >= cache.layers[0].keys.shape[1] - 1:
            break
        x = model.model.embed_tokens(chosen).unsqueeze(1)
        places = next_positions[alive].view(1, -1, 1).expand(3, -1, 1)
        ones = torch.ones_like(alive)
        logits = extend(model, cache, rows[alive], lengths[alive], x, places, ones, selection, generator)
        lengths[alive] += 1
        next_positions[alive] += 1
    return written
