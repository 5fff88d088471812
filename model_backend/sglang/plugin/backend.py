"""The attention backend ``keye_sa``: index keys and queries to places, places to attention, over SGLang's memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from sglang.srt.layers.attention.base_attn_backend import AttentionBackend
from torch import Tensor

from keyeloop.model_backend.kernels import glue, ops
from keyeloop.model_backend.kernels.glue import Norms, Projected
from keyeloop.model_backend.kernels.warming import compile_ahead
from keyeloop.model_backend.keye.rotary import Rotation
from keyeloop.model_backend.sglang.plugin.config import keye_config
from keyeloop.model_backend.sglang.plugin.pool import KeyePool
from keyeloop.runtime.errors import ConfigError


@dataclass(frozen=True)
class Queries:
    """Where the tokens of one forward pass stand, and how they are turned; the same for all layers."""

    rows: Tensor
    """[T] int32: each token's row of the request-to-slot table."""
    positions: Tensor
    """[T] int32: each token's place in its request, from 0."""
    max_tokens: int | None
    """Longest request of the batch, where the host knows it; None inside CUDA graphs."""
    one_each: bool
    """Every token is of another request: decoding."""
    topk: int
    everything: Tensor | None
    """[T, at most topk] int32: all places that each token sees, where no request is longer than ``topk``; else None."""
    zeros: Tensor | None
    """[T] int32 for selections to count in, when decoding; zeros between the layers."""
    main: Rotation
    index: Rotation

    @classmethod
    def of(
        cls, forward_batch: Any, positions: Tensor, topk: int, rotations: tuple[Rotation, Rotation]
    ) -> Queries:  # fmt: skip
        """Read from SGLang's batch; ``positions`` [T] are places, not rope positions. Waits for nothing."""
        rows, places = forward_batch.req_pool_indices.to(torch.int32), positions.to(torch.int32)
        if not forward_batch.forward_mode.is_extend():
            return cls(rows, places, None, True, topk, None, torch.zeros_like(rows), *rotations)
        rows = torch.repeat_interleave(rows, forward_batch.extend_seq_lens, output_size=positions.shape[0])
        longest = None if forward_batch.seq_lens_cpu is None else int(forward_batch.seq_lens_cpu.max())
        everything = None if longest is None or longest > topk else all_places(places, longest)
        return cls(rows, places, longest, False, topk, everything, None, *rotations)


@dataclass(frozen=True)
class Asked:
    """What one layer's projections say of the tokens."""

    queries: Queries
    projected: Projected
    norms: Norms


class KeyeSparseBackend(AttentionBackend):  # type: ignore[misc]
    """Each token attends to the ``topk`` places that its layer's indexer chose, in prefill and decode alike.

    Decoding reads lengths from tensors only, so SGLang's CUDA graphs capture it whole.
    """

    def __init__(self, runner: Any) -> None:
        """Raises ConfigError unless SGLang built the pool that holds index keys."""
        super().__init__()
        self.token_to_kv_pool = runner.token_to_kv_pool
        self.req_to_token_pool = runner.req_to_token_pool
        if not isinstance(self.token_to_kv_pool, KeyePool):
            raise ConfigError(f"the cache is a {type(self.token_to_kv_pool).__name__} without index keys: keyeloop's "
                              "plugin did not reach it; this version of SGLang is not supported")  # fmt: skip
        self._compile(runner)

    def _compile(self, runner: Any) -> None:
        pool, config = self.token_to_kv_pool, keye_config(runner.model_config.hf_config)
        if ops.choose(pool.k_buffer[0].device) == "triton":
            compile_ahead(
                pool.index_keys[0], pool.k_buffer[0], pool.v_buffer[0], self.req_to_token_pool.req_to_token,
                heads=config.num_attention_heads // runner.server_args.tp_size, index_heads=config.indexer.num_heads,
                topk=config.indexer.topk,
            )  # fmt: skip

    def init_forward_metadata(self, forward_batch: Any) -> None:
        """Nothing: :class:`Queries` is computed once a pass, inside CUDA graphs too."""

    def init_forward_metadata_out_graph(self, forward_batch: Any, in_capture: bool = False) -> None:
        """Nothing."""

    def init_cuda_graph_state(self, max_bs: int, max_num_tokens: int) -> None:
        """Nothing: everything lives in SGLang's own buffers."""

    def init_forward_metadata_for_breakable_cuda_graph_capture(self, *_: Any, **__: Any) -> None:
        """Raises ConfigError: prefill is not captured, its shapes are the requests'."""
        raise ConfigError("prefill CUDA graphs are not supported for Keye; start with --disable-prefill-cuda-graph")

    def get_cuda_graph_seq_len_fill_value(self) -> int:
        """Length of the padding requests in a CUDA graph."""
        return 1

    def forward_extend(self, q: Tensor, k: Tensor, v: Tensor, layer: Any, forward_batch: Any,
                       save_kv_cache: bool = True, *, asked: Asked) -> Tensor:  # fmt: skip
        """See :meth:`attend`."""
        return self.attend(layer, forward_batch, asked)

    def forward_decode(self, q: Tensor, k: Tensor, v: Tensor, layer: Any, forward_batch: Any,
                       save_kv_cache: bool = True, *, asked: Asked) -> Tensor:  # fmt: skip
        """See :meth:`attend`."""
        return self.attend(layer, forward_batch, asked)

    def attend(self, layer: Any, forward_batch: Any, asked: Asked) -> Tensor:
        """Keep keys, values and index keys of the new tokens; then [T, heads * D] of attention to the chosen places."""
        pool, queries, table = self.token_to_kv_pool, asked.queries, self.req_to_token_pool.req_to_token
        k, v = pool.get_key_buffer(layer.layer_id), pool.get_value_buffer(layer.layer_id)
        index = pool.index_of(layer.layer_id)
        prepared = glue.prepare(
            asked.projected, asked.norms, queries.main, queries.index, k, v, index, forward_batch.out_cache_loc
        )
        places = queries.everything
        if prepared.index_q is not None and prepared.index_weight is not None:
            places = ops.select(prepared.index_q, prepared.index_weight, index, table, queries.rows, queries.positions,
                                queries.topk, max_tokens=queries.max_tokens, one_each=queries.one_each,
                                zeros=queries.zeros)  # fmt: skip
        assert places is not None
        out = ops.sparse_attention(prepared.q, k, v, table, queries.rows, places, layer.scaling,
                                   max_tokens=queries.max_tokens, one_each=queries.one_each)  # fmt: skip
        return out.flatten(1)


def all_places(positions: Tensor, width: int) -> Tensor:
    """Every place that each token sees, [T, width] int32, padded with -1; ``positions`` are below ``width``."""
    places = torch.arange(width, dtype=torch.int32, device=positions.device).expand(positions.shape[0], -1)
    return places.masked_fill(places > positions.unsqueeze(1), -1)
