"""What stands between a layer's projections and its sparse attention: norms, rotations, rounding, cache writes.

On a GPU all of it is one launch (:mod:`~keyeloop.model_backend.kernels.jit.glue`), where torch makes thirty; elsewhere,
and for sizes that are no powers of two, torch does it here, as the model's own layers do.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from keyeloop.model_backend.kernels import ops
from keyeloop.model_backend.kernels.index_keys import IndexKeys
from keyeloop.model_backend.keye.rotary import Rotation, rotate


@dataclass(frozen=True)
class Projected:
    """Linear outputs of one layer's tokens; rows may lie apart, each row is contiguous."""

    qkv: Tensor
    """[T, (heads + 2 * kv_heads) * D]: queries, keys, values."""
    index_q: Tensor | None
    """[T, index_heads * (Di + 1)]: index queries, then gates; None where every token attends to all it sees."""
    index_key: Tensor
    """[T, Di]."""


@dataclass(frozen=True)
class Norms:
    """Weights of one layer's norms of heads: root mean square, but for the index key, whose norm is a layer norm."""

    q: Tensor
    k: Tensor
    index_q: Tensor
    index_k: Tensor
    index_k_bias: Tensor
    eps: float
    index_eps: float


@dataclass(frozen=True)
class Prepared:
    """What attention asks with; keys and values are in memory already."""

    q: Tensor
    """[T, heads, D]."""
    index_q: Tensor | None
    """[T, index_heads, Di], e4m3 in mode fp8."""
    index_weight: Tensor | None
    """[T, index_heads] float32, scales of the index queries included."""


def prepare(
    projected: Projected,
    norms: Norms,
    main: Rotation,
    index: Rotation,
    k_cache: Tensor,
    v_cache: Tensor,
    index_k: IndexKeys,
    slots: Tensor,
    *,
    kernels: ops.Kernels = "auto",
) -> Prepared:
    """Normalise and rotate queries, keys and the indexer's; keep keys, values and index keys under ``slots`` [T].

    ``main`` and ``index`` are tables [T, 1, D] and [T, 1, Di] in the model's type; ``k_cache`` and ``v_cache`` are
    [slots, kv_heads, D]. The mode of ``index_k`` decides how index queries and keys are rounded.
    """
    if ops.choose(projected.qkv.device, kernels) == "triton" and _fits(projected, k_cache):
        from keyeloop.model_backend.kernels.jit import glue

        return glue.prepare(projected, norms, main, index, k_cache, v_cache, index_k, slots)
    tokens, (_, kv_heads, dim), index_dim = projected.qkv.shape[0], k_cache.shape, projected.index_key.shape[1]
    heads = projected.qkv.shape[1] // dim - 2 * kv_heads
    q, k, v = torch.split(projected.qkv.view(tokens, heads + 2 * kv_heads, dim), [heads, kv_heads, kv_heads], 1)
    where = slots.long()
    k_cache[where] = rotate(F.rms_norm(k, (dim,), norms.k, norms.eps), main).to(k_cache.dtype)
    v_cache[where] = v.to(v_cache.dtype)
    q = rotate(F.rms_norm(q, (dim,), norms.q, norms.eps), main)
    key = projected.index_key
    exact = torch.promote_types(key.dtype, torch.float32)
    weight, bias = norms.index_k.to(exact), norms.index_k_bias.to(exact)
    key = F.layer_norm(key.to(exact), (index_dim,), weight, bias, norms.index_eps).to(key.dtype)
    ops.store_index_keys(index_k, rotate(key.unsqueeze(1), index).squeeze(1), where, kernels=kernels)
    if projected.index_q is None:
        return Prepared(q, None, None)
    index_heads = projected.index_q.shape[1] // (index_dim + 1)
    packed, gates = torch.split(projected.index_q, [index_heads * index_dim, index_heads], 1)
    asked = F.rms_norm(packed.view(tokens, index_heads, index_dim), (index_dim,), norms.index_q, norms.index_eps)
    gates = gates.to(exact) * index_dim**-0.5
    index_q, index_weight = ops.index_queries(rotate(asked, index), gates, index_k.mode, kernels=kernels)
    return Prepared(q, index_q, index_weight)


def _fits(projected: Projected, k_cache: Tensor) -> bool:
    return all(dim >= 4 and not dim & (dim - 1) for dim in (k_cache.shape[2], projected.index_key.shape[1]))
