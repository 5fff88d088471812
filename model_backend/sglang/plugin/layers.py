"""Keye's decoder in SGLang's layers: sharded projections and experts, replicated indexer, sparse attention."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from sglang.srt.layers.layernorm import RMSNorm
from sglang.srt.layers.linear import QKVParallelLinear, RowParallelLinear
from sglang.srt.layers.quantization.unquant import UnquantizedLinearMethod
from sglang.srt.layers.radix_attention import RadixAttention
from sglang.srt.layers.vocab_parallel_embedding import VocabParallelEmbedding
from sglang.srt.model_executor.forward_context import get_attn_backend
from sglang.srt.models.qwen3_moe import Qwen3MoeSparseMoeBlock
from torch import Tensor, nn

from keyeloop.model_backend.kernels.glue import Norms, Projected
from keyeloop.model_backend.kernels.ops import choose
from keyeloop.model_backend.keye.config import KeyeConfig
from keyeloop.model_backend.keye.indexer import Indexer
from keyeloop.model_backend.sglang.plugin.backend import Asked, KeyeSparseBackend, Queries
from keyeloop.model_backend.sglang.plugin.rotary import Rotary
from keyeloop.runtime.errors import ConfigError


class ServedAttention(nn.Module):
    """Attention of one layer."""

    def __init__(self, config: KeyeConfig, layer: int, quant_config: Any, prefix: str) -> None:
        super().__init__()
        self.qkv_proj = QKVParallelLinear(
            config.hidden_size, config.head_dim, config.num_attention_heads, config.num_key_value_heads,
            bias=False, quant_config=quant_config, prefix=f"{prefix}.qkv_proj",
        )  # fmt: skip
        self.o_proj = RowParallelLinear(
            config.num_attention_heads * config.head_dim, config.hidden_size,
            bias=False, quant_config=quant_config, prefix=f"{prefix}.o_proj",
        )  # fmt: skip
        self.q_norm = RMSNorm(config.head_dim, eps=config.rms_norm_eps)
        self.k_norm = RMSNorm(config.head_dim, eps=config.rms_norm_eps)
        self.sa_indexer = Indexer(config)  # on every rank, never quantised: all ranks choose the same places
        self.joined: Tensor | None = None
        self.widths: list[int] = []
        self.attn = RadixAttention(
            self.qkv_proj.num_heads, config.head_dim, config.head_dim**-0.5,
            num_kv_heads=self.qkv_proj.num_kv_heads, layer_id=layer, prefix=f"{prefix}.attn",
        )  # fmt: skip

    def forward(self, x: Tensor, queries: Queries, forward_batch: Any) -> Tensor:
        """``x`` [T, hidden], normalised; the same input feeds projections and indexer.

        Raises ConfigError when SGLang runs another attention backend: it would attend to everything.
        """
        backend = get_attn_backend()
        if not isinstance(backend, KeyeSparseBackend):
            raise ConfigError(f"SGLang attends with {type(backend).__name__}, not keye_sa: Keye would run densely; "
                              "leave --attention-backend out")  # fmt: skip
        asked = Asked(queries, self.projected(x, queries.everything is None), self.norms())
        attended = backend.forward(x, None, None, self.attn, forward_batch, asked=asked)
        out, _ = self.o_proj(attended)
        return out  # type: ignore[no-any-return]

    def projected(self, x: Tensor, choosing: bool) -> Projected:
        """All projections of ``x``, as one product where the weights are joined; no index queries unless choosing."""
        if self.joined is not None and type(self.qkv_proj) is QKVParallelLinear:  # not wrapped by adapters
            qkv, index_q, index_key = torch.split(F.linear(x, self.joined), self.widths, -1)
            return Projected(qkv, index_q if choosing else None, index_key)
        qkv, _ = self.qkv_proj(x)
        return Projected(qkv, self.sa_indexer.q_proj(x) if choosing else None, self.sa_indexer.k_proj(x))

    def norms(self) -> Norms:
        """Weights of the norms of heads."""
        index = self.sa_indexer
        return Norms(
            self.q_norm.weight, self.k_norm.weight, index.q_norm.weight, index.k_norm.weight, index.k_norm.bias,
            self.q_norm.variance_epsilon, index.k_norm.eps,
        )  # fmt: skip

    def join(self) -> None:
        """Lay the projections' weights behind each other, to be one product; nothing is kept twice.

        Weights that SGLang quantises or packs, of another type or on a CPU stay apart. Loading again fills the same
        memory.
        """
        parts = [self.qkv_proj.weight, self.sa_indexer.q_proj.weight, self.sa_indexer.k_proj.weight]
        method, first = self.qkv_proj.quant_method, parts[0]
        plain = isinstance(method, UnquantizedLinearMethod) and {part.dtype for part in parts} == {first.dtype}
        if not plain or choose(first.device) != "triton" or self.joined is not None:
            return
        self.widths = [part.shape[0] for part in parts]
        self.joined = torch.cat([part.data for part in parts])
        for part, rows in zip(parts, torch.split(self.joined, self.widths), strict=True):
            part.data = rows


class ServedLayer(nn.Module):
    """Pre-norm attention and experts; SGLang's norm adds the residual on the way."""

    def __init__(self, config: KeyeConfig, hf_config: Any, layer: int, quant_config: Any, prefix: str) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attn = ServedAttention(config, layer, quant_config, f"{prefix}.self_attn")
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = Qwen3MoeSparseMoeBlock(layer, hf_config, quant_config, prefix=f"{prefix}.mlp")

    def forward(
        self, x: Tensor, residual: Tensor | None, queries: Queries, forward_batch: Any
    ) -> tuple[Tensor, Tensor]:
        """Output of the experts [T, hidden], and the residual that the next norm adds to it."""
        if residual is None:
            x, residual = self.input_layernorm(x), x
        else:
            x, residual = self.input_layernorm(x, residual)
        x = self.self_attn(x, queries, forward_batch)
        x, residual = self.post_attention_layernorm(x, residual)
        return self.mlp(x), residual


class ServedDecoder(nn.Module):
    """Embeddings, layers and final norm: what SGLang calls the language model."""

    def __init__(self, config: KeyeConfig, hf_config: Any, quant_config: Any) -> None:
        super().__init__()
        self.embed_tokens = VocabParallelEmbedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            ServedLayer(config, hf_config, layer, quant_config, f"model.layers.{layer}")
            for layer in range(config.num_hidden_layers)
        )
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary = Rotary(config)
        self.topk = config.indexer.topk

    def join(self) -> None:
        """Join the projections of every layer, once weights are loaded."""
        for layer in self.layers:
            assert isinstance(layer, ServedLayer)
            layer.self_attn.join()

    def get_input_embeddings(self) -> nn.Module:
        """The token embedding."""
        return self.embed_tokens  # type: ignore[no-any-return]

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        forward_batch: Any,
        input_embeds: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """Hidden states [T, hidden] after the final norm. ``positions`` [T] are places in the requests."""
        x = self.embed_tokens(input_ids) if input_embeds is None else input_embeds
        if x.shape[0] == 0:
            return x
        rope = forward_batch.mrope_positions
        rotations = self.rotary(positions if rope is None else rope, x.dtype)
        queries = Queries.of(forward_batch, positions, self.topk, rotations)
        residual: Tensor | None = None
        for layer in self.layers:
            x, residual = layer(x, residual, queries, forward_batch)
        normed, _ = self.norm(x, residual)
        return normed  # type: ignore[no-any-return]
