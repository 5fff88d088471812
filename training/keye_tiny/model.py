"""keye-tiny as a batched training network; its ``state_dict`` has the published names and loads into the runtime model.

Written apart from ``keyeloop.model_backend.keye``, so that each checks the other. Sequences are right-padded [B, T].
The residual stream, norms, router and index scores stay in float32; products run in the autocast type.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.keye_tiny.experts import MixtureOfExperts
from training.keye_tiny.rotary import Rope, rope_of, rotate
from training.keye_tiny.shape import TinyShape
from training.keye_tiny.vision import Projector, Visual

POSITION_SIZE = 0.3
"""Height of the waves that the vision tower's positions start as: near that of the patches, so that places show."""


class Extra(NamedTuple):
    """What a decoder layer reports beside its output: sums over the layer, as scalars."""

    index_kl: Tensor
    balance: Tensor
    mass: Tensor
    """Share of the attention that lies on the selected keys, over the probed queries."""


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm in float32."""
    x = x.float()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def select_keys(scores: Tensor, causal: Tensor, topk: int) -> Tensor:
    """Mask of the ``topk`` best causal keys of every query, exactly; ties go to the lowest index.

    ``scores`` [..., Tq, Tk] float32, ``causal`` broadcasts to it. Rows with fewer causal keys select them all.
    """
    if scores.shape[-1] <= topk:
        return causal.expand(scores.shape)
    scores = scores.masked_fill(~causal, float("-inf"))
    threshold = scores.topk(topk, dim=-1, sorted=False).values.amin(-1, keepdim=True)
    above = scores > threshold
    level = scores == threshold
    room = topk - above.sum(-1, keepdim=True, dtype=torch.int32)
    return (above | (level & (level.cumsum(-1, dtype=torch.int32) <= room))) & causal


def grid_waves(side: int, width: int) -> Tensor:
    """Smooth rows [side * side, width] that tell places of a grid apart: waves along its rows and its columns."""
    place = (torch.arange(side) + 0.5) / side
    quarter = width // 4
    angles = place[:, None] * (math.pi * (side / 2) ** torch.linspace(0, 1, quarter))
    waves = torch.cat((angles.sin(), angles.cos()), dim=1)
    rows, columns = waves[:, None].expand(-1, side, -1), waves[None].expand(side, -1, -1)
    return torch.cat((rows, columns), dim=2).flatten(0, 1)


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


class Indexer(nn.Module):
    """The lightning indexer: a few light heads over one shared key score every earlier token."""

    def __init__(self, shape: TinyShape) -> None:
        super().__init__()
        self.heads, self.dim = shape.index_heads, shape.index_dim
        self.q_proj = nn.Linear(shape.hidden, self.heads * self.dim + self.heads, bias=False)
        self.k_proj = nn.Linear(shape.hidden, self.dim, bias=False)
        self.q_norm = RMSNorm(self.dim, 1e-6)
        self.k_norm = nn.LayerNorm(self.dim, eps=1e-6)

    def keys(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Index keys [B, T, D]."""
        k = F.layer_norm(self.k_proj(x).float(), (self.dim,), self.k_norm.weight, self.k_norm.bias, 1e-6)
        return rotate(k, cos, sin)

    def scores(self, x: Tensor, cos: Tensor, sin: Tensor, keys: Tensor) -> Tensor:
        """Index scores [B, Q, T] float32 of the queries of ``x`` [B, Q, hidden] against ``keys`` [B, T, D]."""
        packed = self.q_proj(x)
        q, gate = packed.split((self.heads * self.dim, self.heads), dim=-1)
        q = self.q_norm(q.unflatten(-1, (self.heads, self.dim)))
        q = rotate(q, cos.unsqueeze(2), sin.unsqueeze(2))
        products = torch.matmul(q.transpose(1, 2), keys.unsqueeze(1).transpose(-1, -2))
        weighted = products.relu().float() * gate.float().transpose(1, 2).unsqueeze(-1)
        scale: float = self.dim**-0.5
        total: Tensor = weighted.sum(1) * scale
        return total


class Attention(nn.Module):
    """Grouped-query attention, dense or over the indexer's selection."""

    def __init__(self, shape: TinyShape) -> None:
        super().__init__()
        self.shape = shape
        width = shape.heads * shape.head_dim
        kv_width = shape.kv_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden, width, bias=False)
        self.k_proj = nn.Linear(shape.hidden, kv_width, bias=False)
        self.v_proj = nn.Linear(shape.hidden, kv_width, bias=False)
        self.o_proj = nn.Linear(width, shape.hidden, bias=False)
        self.q_norm = RMSNorm(shape.head_dim, shape.norm_eps)
        self.k_norm = RMSNorm(shape.head_dim, shape.norm_eps)
        self.sa_indexer = Indexer(shape)

    def project(self, x: Tensor, rope: Rope) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [B, heads, T, d] and keys, values [B, kv_heads, T, d], normed and rotated."""
        d = self.shape.head_dim
        cos, sin = rope.cos.unsqueeze(2), rope.sin.unsqueeze(2)
        q = rotate(self.q_norm(self.q_proj(x).unflatten(-1, (-1, d))), cos, sin)
        k = rotate(self.k_norm(self.k_proj(x).unflatten(-1, (-1, d))), cos, sin)
        v = self.v_proj(x).unflatten(-1, (-1, d))
        return q.transpose(1, 2).to(v.dtype), k.transpose(1, 2).to(v.dtype), v.transpose(1, 2)

    def forward(self, x: Tensor, rope: Rope, probes: Tensor, sparse: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Output [B, T, hidden], the indexer's KL and the selected mass, both averaged over ``probes`` [B, Q] int64."""
        q, k, v = self.project(x, rope)
        length, group = x.shape[1], self.shape.heads // self.shape.kv_heads
        k_all, v_all = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        quiet = x.detach()
        index_keys = self.sa_indexer.keys(quiet, rope.index_cos, rope.index_sin)
        places = torch.arange(length, device=x.device)
        selected: Tensor | None = None
        if sparse and length > self.shape.topk:
            with torch.no_grad():
                scores = self.sa_indexer.scores(quiet, rope.index_cos, rope.index_sin, index_keys)
                selected = select_keys(scores, places <= places[:, None], self.shape.topk)
            out = F.scaled_dot_product_attention(q, k_all, v_all, attn_mask=selected.unsqueeze(1))
        else:
            out = F.scaled_dot_product_attention(q, k_all, v_all, is_causal=True)
        kl, mass = self._index_loss(quiet, rope, probes, index_keys, q.detach(), k_all.detach(), selected)
        return self.o_proj(out.transpose(1, 2).flatten(-2)), kl, mass

    def _index_loss(
        self,
        x: Tensor,
        rope: Rope,
        probes: Tensor,
        keys: Tensor,
        q: Tensor,
        k: Tensor,
        selected: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """KL from the mean head's attention to softmax(index scores), over the probes (and the selected keys)."""
        length = x.shape[1]

        def take(values: Tensor) -> Tensor:
            return values.gather(1, probes.unsqueeze(-1).expand(-1, -1, values.shape[-1]))

        visible = torch.arange(length, device=x.device) <= probes.unsqueeze(-1)
        scores = self.sa_indexer.scores(take(x), take(rope.index_cos), take(rope.index_sin), keys)
        with torch.no_grad():
            rows = q.gather(2, probes[:, None, :, None].expand(-1, q.shape[1], -1, q.shape[-1]))
            logits = torch.matmul(rows, k.transpose(-1, -2)).float() * self.shape.head_dim**-0.5
            target = logits.masked_fill(~visible.unsqueeze(1), float("-inf")).softmax(-1).mean(1)
            if selected is not None:
                chosen = selected.gather(1, probes.unsqueeze(-1).expand(-1, -1, length))
            else:
                chosen = select_keys(scores.detach(), visible, self.shape.topk)
            mass = (target * chosen).sum(-1)
            if selected is not None:
                visible = chosen
                target = target * chosen / mass.clamp_min(1e-9).unsqueeze(-1)
        log_index = scores.masked_fill(~visible, -1e9).log_softmax(-1)
        divergence = (target * (target.clamp_min(1e-9).log() - log_index)).sum(-1)
        return divergence.mean(), mass.mean()


class DecoderLayer(nn.Module):
    def __init__(self, shape: TinyShape) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.hidden, shape.norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = RMSNorm(shape.hidden, shape.norm_eps)
        self.mlp = MixtureOfExperts(shape)

    def forward(self, x: Tensor, rope: Rope, valid: Tensor, probes: Tensor, sparse: bool) -> tuple[Tensor, Extra]:
        out, kl, mass = self.self_attn(self.input_layernorm(x), rope, probes, sparse)
        x = x + out.float()
        out, balance = self.mlp(self.post_attention_layernorm(x), valid)
        return x + out.float(), Extra(kl, balance, mass)


class Decoder(nn.Module):
    def __init__(self, shape: TinyShape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden)
        self.layers = nn.ModuleList(DecoderLayer(shape) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.hidden, shape.norm_eps)


class KeyeTiny(nn.Module):
    """The whole network. ``layer_step`` and ``visual.step`` may be replaced by compiled versions."""

    def __init__(self, shape: TinyShape) -> None:
        super().__init__()
        self.shape = shape
        self.model = Decoder(shape)
        self.lm_head = nn.Linear(shape.hidden, shape.vocab_size, bias=False)
        self.visual = Visual(shape)
        self.mlp_AR = Projector(shape)
        self.layer_step: Callable[..., Any] = run_layer
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """Normal weights of deviation 0.02 (decoder outputs scaled by depth); norms one, biases zero."""
        depth_scale = (2 * self.shape.layers) ** -0.5
        for name, weight in self.named_parameters():
            if weight.dim() < 2:
                weight.fill_(1.0 if name.endswith("weight") else 0.0)
                continue
            std = 0.02
            if "visual" in name or "mlp_AR" in name:
                if name.endswith("embeddings.position_embedding.weight"):
                    weight.copy_(POSITION_SIZE * grid_waves(self.shape.table_side, self.shape.vision_width))
                    continue
                fan_in = weight[0].numel()
                std = 0.02 if "packing" in name else fan_in**-0.5 * 0.7
            elif name.endswith(("o_proj.weight", "down_proj")):
                std = self.shape.hidden**-0.5 * depth_scale
            elif "proj" in name:
                std = self.shape.hidden**-0.5 * 0.7
            weight.normal_(0.0, std)

    def embed(self, ids: Tensor, seen: Tensor | None, targets: Tensor | None) -> Tensor:
        """Embeddings [B, T, hidden] float32 with visual tokens ``seen`` [n, hidden] at flat places ``targets`` [n]."""
        x: Tensor = self.model.embed_tokens(ids.long()).float()
        if seen is None or targets is None:
            return x
        flat = x.flatten(0, 1)
        return flat.index_copy(0, targets, seen.float()).view_as(x)

    def decode(
        self, x: Tensor, positions: Tensor, valid: Tensor, probes: Tensor, *, sparse: bool
    ) -> tuple[Tensor, Extra]:
        """Normed hidden states [B, T, hidden] and the layers' mean losses; positions [3, B, T], valid [B, T] bool."""
        rope = rope_of(positions, self.shape)
        extras: list[Extra] = []
        for layer in self.model.layers:
            x, extra = self.layer_step(layer, x, rope, valid, probes, sparse)
            extras.append(extra)
        means = [torch.stack(values).mean() for values in zip(*extras, strict=True)]
        return self.model.norm(x), Extra(*means)


def run_layer(
    layer: DecoderLayer, x: Tensor, rope: Rope, valid: Tensor, probes: Tensor, sparse: bool
) -> tuple[Tensor, Extra]:
    """One decoder layer as a free function, so that all layers share one compiled graph."""
    found: tuple[Tensor, Extra] = layer(x, rope, valid, probes, sparse)
    return found
