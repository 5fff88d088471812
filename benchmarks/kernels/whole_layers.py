"""The language model on this project's kernels and torch's matrix products alone, over paged memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from keyeloop.model_backend.kernels import glue, moe, ops
from keyeloop.model_backend.kernels.glue import Norms, Projected
from keyeloop.model_backend.kernels.index_keys import IndexKeys
from keyeloop.model_backend.keye.config import IndexerConfig, KeyeConfig, VisionConfig
from keyeloop.model_backend.keye.indexer import IndexerMode
from keyeloop.model_backend.keye.presets import keye_30b
from keyeloop.model_backend.keye.random_weights import random_tensors
from keyeloop.model_backend.keye.rotary import Rotation, SectionedRotary

PAGE = 64
Dense = Literal["cudnn", "flash", "torch"]
"""Who attends to everything: one of torch's backends for a GPU, or plain products."""


def small_config() -> KeyeConfig:
    """Every part of the 30B model, of tiny size: for trying what runs it."""
    return replace(
        keye_30b(), hidden_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
        moe_intermediate_size=32, num_experts=8, num_experts_per_tok=2, vocab_size=96, mrope_section=(2, 3, 3),
        indexer=IndexerConfig(num_heads=2, head_dim=16, topk=32),
        vision=VisionConfig(16, 16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14,
                            packing_positions=0),
    )  # fmt: skip


@dataclass(frozen=True)
class Memory:
    """Keys, values and index keys of all layers, and the order of slots that requests are given, page by page."""

    k: Tensor
    """[layers, slots, kv_heads, D]; ``v`` alike."""
    v: Tensor
    index: tuple[IndexKeys, ...]
    slots: Tensor
    """[slots] int32: pages in a shuffled order."""

    @classmethod
    def of(
        cls, config: KeyeConfig, slots: int, mode: IndexerMode, dtype: torch.dtype, device: torch.device
    ) -> Memory:  # fmt: skip
        """Of random contents, as if that many tokens had been read; ``slots`` are whole pages."""
        layers, dim = config.num_hidden_layers, config.indexer.head_dim
        shape = (layers, slots, config.num_key_value_heads, config.head_dim)
        k, v = (torch.empty(shape, dtype=dtype, device=device) for _ in "kv")
        index = tuple(IndexKeys.zeros(slots, dim, mode, dtype, device) for _ in range(layers))
        every = torch.arange(slots, device=device)
        for layer in range(layers):
            k[layer].normal_()
            v[layer].normal_()
            ops.store_index_keys(index[layer], torch.randn(slots, dim, device=device).to(dtype), every)
        pages = torch.randperm(slots // PAGE, device=device).unsqueeze(1) * PAGE
        return cls(k, v, index, (pages + torch.arange(PAGE, device=device)).flatten().to(torch.int32))


@dataclass(frozen=True)
class Step:
    """What all layers of one forward pass share; fields are those of :mod:`keyeloop.model_backend.kernels.ops`."""

    table: Tensor
    rows: Tensor
    positions: Tensor
    slots: Tensor
    main: Rotation
    index: Rotation
    one_each: bool
    max_tokens: int | None = None
    chosen: Tensor | None = None
    """[T, topk] places that every layer attends to; None lets each layer's indexer choose."""
    zeros: Tensor | None = None
    dense: Dense | None = None
    """Attend to everything instead; slots of the only request are then in order from 0."""
    kernels: ops.Kernels = "auto"

    def last(self, tokens: int, kernels: ops.Kernels) -> Step:
        """Of the last tokens alone."""
        rows, positions, slots = (x[-tokens:] for x in (self.rows, self.positions, self.slots))
        main, index = (Rotation(turn.cos[-tokens:], turn.sin[-tokens:]) for turn in (self.main, self.index))
        chosen = None if self.chosen is None else self.chosen[-tokens:]
        return replace(self, rows=rows, positions=positions, slots=slots, main=main, index=index, chosen=chosen,
                       dense=None if self.dense is None else "torch", zeros=None, kernels=kernels)  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """Weights of one layer: projections behind each other, experts as the grouped products want them."""

    before: Tensor
    joined: Tensor
    """[queries, keys, values, index queries and gates, index key; hidden]."""
    widths: tuple[int, int, int]
    norms: Norms
    out: Tensor
    between: Tensor
    gate: Tensor
    w13: Tensor
    w2: Tensor

    def forward(self, x: Tensor, step: Step, memory: Memory, layer: int, config: KeyeConfig) -> Tensor:
        """``x`` [T, hidden] is overwritten and returned."""
        size, eps = (config.hidden_size,), config.rms_norm_eps
        k, v, index = memory.k[layer], memory.v[layer], memory.index[layer]
        projected = self.projected(F.rms_norm(x, size, self.before, eps), step.dense is None)
        asked = glue.prepare(
            projected, self.norms, step.main, step.index, k, v, index, step.slots, kernels=step.kernels
        )  # fmt: skip
        if step.dense is not None:
            attended = dense_attention(asked.q, k, v, step.max_tokens or 0, step.dense)
        else:
            chosen = step.chosen
            if chosen is None:
                assert asked.index_q is not None
                assert asked.index_weight is not None
                chosen = ops.select(
                    asked.index_q, asked.index_weight, index, step.table, step.rows, step.positions,
                    config.indexer.topk, max_tokens=step.max_tokens, one_each=step.one_each, zeros=step.zeros,
                    kernels=step.kernels,
                )  # fmt: skip
            attended = ops.sparse_attention(
                asked.q, k, v, step.table, step.rows, chosen, config.head_dim**-0.5, max_tokens=step.max_tokens,
                one_each=step.one_each, kernels=step.kernels,
            )  # fmt: skip
        x.addmm_(attended.flatten(1), self.out.t())
        return x.add_(
            moe.mixture_of_experts(
                F.rms_norm(x, size, self.between, eps), self.gate, self.w13, self.w2, config.num_experts_per_tok,
                renormalise=config.norm_topk_prob, kernels=step.kernels,
            )
        )  # fmt: skip

    def projected(self, normed: Tensor, indexer: bool) -> Projected:
        """One product; without the indexer's columns, whose key is then any numbers, where everything is attended."""
        if indexer:
            return Projected(*torch.split(F.linear(normed, self.joined), list(self.widths), -1))
        return Projected(F.linear(normed, self.joined[: self.widths[0]]), None, normed[:, : self.widths[2]])


class Model:
    """Random weights of every published name, as the torch reference has them for the same seed."""

    def __init__(
        self, config: KeyeConfig, seed: int, dtype: torch.dtype, device: torch.device, most_tokens: int
    ) -> None:
        self.config = config
        self.layers: list[Layer] = []
        held: dict[str, Tensor] = {}
        for name, tensor in random_tensors(config, seed, device=device, dtype=dtype):
            if not name.startswith(("model.", "lm_head.")):
                continue
            if name.endswith(("gate_up_proj", "down_proj")):
                tensor = tensor.transpose(1, 2).contiguous()
            held[name] = tensor
            if name.startswith("model.layers.") and len(held) == PARTS + self.outer(held):
                self.layers.append(self.layer(held, len(self.layers)))
        self.embedding, self.norm, self.head = (
            held.pop(name) for name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")
        )
        assert len(self.layers) == config.num_hidden_layers
        assert not held
        shapes = ((config.head_dim, config.mrope_section), (config.indexer.head_dim, config.index_mrope_section))
        places = torch.arange(most_tokens, device=device).expand(3, -1)
        self.turns = SectionedRotary(config.rope_theta, shapes)(places, dtype)

    @staticmethod
    def outer(held: dict[str, Tensor]) -> int:
        """Tensors that belong to no layer."""
        return sum(not name.startswith("model.layers.") for name in held)

    def layer(self, held: dict[str, Tensor], number: int) -> Layer:
        """Takes the tensors of one layer out of ``held``."""
        start, config = f"model.layers.{number}.", self.config
        part = {name.removeprefix(start): held.pop(name) for name in list(held) if name.startswith(start)}
        a, i = "self_attn.", "self_attn.sa_indexer."
        qkv = torch.cat([part.pop(f"{a}{name}_proj.weight") for name in "qkv"])
        index_q, index_k = (part.pop(f"{i}{name}_proj.weight") for name in "qk")
        norms = Norms(
            part.pop(f"{a}q_norm.weight"), part.pop(f"{a}k_norm.weight"), part.pop(f"{i}q_norm.weight"),
            part.pop(f"{i}k_norm.weight"), part.pop(f"{i}k_norm.bias"), config.rms_norm_eps, 1e-6,
        )  # fmt: skip
        made = Layer(
            part.pop("input_layernorm.weight"), torch.cat((qkv, index_q, index_k)),
            (len(qkv), len(index_q), len(index_k)), norms, part.pop(f"{a}o_proj.weight"),
            part.pop("post_attention_layernorm.weight"), part.pop("mlp.gate.weight"),
            part.pop("mlp.experts.gate_up_proj"), part.pop("mlp.experts.down_proj"),
        )  # fmt: skip
        assert not part
        return made

    def turned(self, where: slice | Tensor) -> tuple[Rotation, Rotation]:
        """Rotations of text at these positions: a slice, or a tensor that only the device knows."""
        main, index = (
            Rotation(turn.cos[where], turn.sin[where])
            if isinstance(where, slice)
            else Rotation(turn.cos.index_select(0, where), turn.sin.index_select(0, where))
            for turn in self.turns
        )
        return main, index

    def forward(self, ids: Tensor, step: Step, memory: Memory, layers: int | None = None) -> Tensor:
        """Hidden states [T, hidden] before the final norm; of the first ``layers`` only, if given."""
        x = F.embedding(ids, self.embedding)
        for number, layer in enumerate(self.layers[:layers]):
            x = layer.forward(x, step, memory, number, self.config)
        return x

    def logits(self, hidden: Tensor) -> Tensor:
        """[T, vocab]."""
        return F.linear(
            F.rms_norm(hidden, (self.config.hidden_size,), self.norm, self.config.rms_norm_eps), self.head
        )  # fmt: skip

    def bytes(self) -> Iterator[int]:
        """Of all weights but the embedding, of which a token reads one row."""
        for layer in self.layers:
            norms = (x for x in vars(layer.norms).values() if isinstance(x, Tensor))
            yield sum(x.nbytes for x in (*norms, *vars(layer).values()) if isinstance(x, Tensor))
        yield self.head.nbytes + self.norm.nbytes


PARTS = 16
"""Published tensors of a layer."""


def dense_attention(q: Tensor, k: Tensor, v: Tensor, stop: int, how: Dense) -> Tensor:
    """Of the queries [T, heads, D] of the last tokens before ``stop`` to all that each sees: [T, heads, D].

    Earlier keys and the tokens' own are attended to apart, as a backend whose triangle begins at the first key must;
    both are weighed by the sums of their exponentials.
    """
    start = stop - len(q)
    own, own_sum = _attended(q, k[start:stop], v[start:stop], True, how)
    if not start:
        return own
    before, before_sum = _attended(q, k[:start], v[:start], False, how)
    return torch.lerp(before, own, torch.sigmoid(own_sum - before_sum).to(own.dtype).unsqueeze(-1))


def _attended(q: Tensor, k: Tensor, v: Tensor, causal: bool, how: Dense) -> tuple[Tensor, Tensor]:
    """[T, heads, D], and logarithms [T, heads] of the sums of exponentials."""
    if how == "torch":
        group = q.shape[1] // k.shape[1]
        exact = torch.promote_types(q.dtype, torch.float32)
        keys, values = (x.to(exact).repeat_interleave(group, 1) for x in (k, v))
        dots = torch.einsum("qhd,khd->qhk", q.to(exact), keys) * q.shape[2] ** -0.5
        if causal:
            later = torch.ones(len(q), len(k), dtype=torch.bool, device=q.device).triu(1)
            dots = dots.masked_fill(later.unsqueeze(1), -torch.inf)
        return torch.einsum("qhk,khd->qhd", dots.softmax(-1), values).to(q.dtype), dots.logsumexp(-1)
    given = [x.transpose(0, 1).unsqueeze(0) for x in (q, k, v)]
    if how == "cudnn":
        found = torch.ops.aten._scaled_dot_product_cudnn_attention(*given, None, True, 0.0, causal)
    else:
        found = torch.ops.aten._scaled_dot_product_flash_attention(*given, 0.0, causal)
    return found[0].squeeze(0).transpose(0, 1), found[1].reshape(q.shape[1], len(q)).t()
