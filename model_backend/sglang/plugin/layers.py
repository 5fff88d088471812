"""Keye's decoder in SGLang's layers: sharded projections and experts, replicated indexer, sparse attention."""

from __future__ import annotations

from typing import Any

from sglang.srt.layers.layernorm import RMSNorm
from sglang.srt.layers.linear import QKVParallelLinear, RowParallelLinear
from sglang.srt.layers.radix_attention import RadixAttention
from sglang.srt.layers.vocab_parallel_embedding import VocabParallelEmbedding
from sglang.srt.model_executor.forward_context import get_attn_backend
from sglang.srt.models.qwen3_moe import Qwen3MoeSparseMoeBlock
from torch import Tensor, nn

from keyeloop.model_backend.keye.config import KeyeConfig
from keyeloop.model_backend.keye.indexer import Indexer
from keyeloop.model_backend.keye.rotary import Rotation, rotate
from keyeloop.model_backend.sglang.plugin.backend import Asked, KeyeSparseBackend, Queries
from keyeloop.model_backend.sglang.plugin.rotary import Rotary
from keyeloop.runtime.errors import ConfigError


class ServedIndexer(Indexer):
    """``sa_indexer`` on every rank, never quantised: all ranks choose the same places."""

    def ask(self, x: Tensor, rotation: Rotation, queries: Queries, topk: int) -> Asked:
        """What the tokens ``x`` [T, hidden] are found by, and what they look for.

        Where the whole batch sees at most ``topk`` places there is nothing to choose, and no query is computed.
        """
        keys = self.keys(x, rotation, "exact")
        if queries.max_tokens is not None and queries.max_tokens <= topk:
            return Asked(queries, keys, None, None, topk)
        width = self.num_heads * self.head_dim
        packed = self.q_proj(x)
        heads = rotate(self.q_norm(packed[:, :width].view(-1, self.num_heads, self.head_dim)), rotation)
        return Asked(queries, keys, heads, packed[:, width:].float() * self.head_dim**-0.5, topk)


class ServedAttention(nn.Module):
    """Attention of one layer."""

    def __init__(self, config: KeyeConfig, layer: int, quant_config: Any, prefix: str) -> None:
        super().__init__()
        self.topk, self.dim = config.indexer.topk, config.head_dim
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
        self.sa_indexer = ServedIndexer(config)
        self.heads, self.kv_heads = self.qkv_proj.num_heads, self.qkv_proj.num_kv_heads
        self.attn = RadixAttention(
            self.heads, config.head_dim, config.head_dim**-0.5, num_kv_heads=self.kv_heads, layer_id=layer,
            prefix=f"{prefix}.attn",
        )  # fmt: skip

    def forward(self, x: Tensor, main: Rotation, index: Rotation, queries: Queries, forward_batch: Any) -> Tensor:
        """``x`` [T, hidden], normalised; the same input feeds projections and indexer.

        Raises ConfigError when SGLang runs another attention backend: it would attend to everything.
        """
        backend = get_attn_backend()
        if not isinstance(backend, KeyeSparseBackend):
            raise ConfigError(f"SGLang attends with {type(backend).__name__}, not keye_sa: Keye would run densely; "
                              "leave --attention-backend out")  # fmt: skip
        qkv, _ = self.qkv_proj(x)
        q, k, v = qkv.split([self.heads * self.dim, self.kv_heads * self.dim, self.kv_heads * self.dim], -1)
        q = rotate(self.q_norm(q.reshape(-1, self.dim)).view(-1, self.heads, self.dim), main)
        k = rotate(self.k_norm(k.reshape(-1, self.dim)).view(-1, self.kv_heads, self.dim), main)
        asked = self.sa_indexer.ask(x, index, queries, self.topk)
        attended = backend.forward(q, k, v.contiguous(), self.attn, forward_batch, asked=asked)
        out, _ = self.o_proj(attended)
        return out  # type: ignore[no-any-return]


class ServedLayer(nn.Module):
    """Pre-norm attention and experts; SGLang's norm adds the residual on the way."""

    def __init__(self, config: KeyeConfig, hf_config: Any, layer: int, quant_config: Any, prefix: str) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attn = ServedAttention(config, layer, quant_config, f"{prefix}.self_attn")
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = Qwen3MoeSparseMoeBlock(layer, hf_config, quant_config, prefix=f"{prefix}.mlp")

    def forward(
        self, x: Tensor, residual: Tensor | None, main: Rotation, index: Rotation, queries: Queries, forward_batch: Any
    ) -> tuple[Tensor, Tensor]:
        """Output of the experts [T, hidden], and the residual that the next norm adds to it."""
        if residual is None:
            x, residual = self.input_layernorm(x), x
        else:
            x, residual = self.input_layernorm(x, residual)
        x = self.self_attn(x, main, index, queries, forward_batch)
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
        main, index = self.rotary(positions if rope is None else rope, x.dtype)
        queries = Queries.of(forward_batch, positions)
        residual: Tensor | None = None
        for layer in self.layers:
            x, residual = layer(x, residual, main, index, queries, forward_batch)
        normed, _ = self.norm(x, residual)
        return normed  # type: ignore[no-any-return]
