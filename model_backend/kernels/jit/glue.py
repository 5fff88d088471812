"""Triton: everything between a layer's projections and its sparse attention in one launch.

A program takes one token and one part of it: keys, values and the index key into their memory; the index queries; or
some query heads. Between steps numbers are rounded to the model's type as torch rounds them there.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from keyeloop.model_backend.kernels.glue import Norms, Prepared, Projected
from keyeloop.model_backend.kernels.index_keys import FP8, IndexKeys
from keyeloop.model_backend.kernels.jit.rounding import as_codes
from keyeloop.model_backend.keye.rotary import Rotation

HEADS_AT_ONCE = 16
"""Query heads that one program takes, at most."""
WARPS = 4


@triton.jit
def _halves(x, there, HALF: tl.constexpr):
    """Both halves of rows of ``2 * HALF`` numbers, in float32."""
    where = x[:, None] + tl.arange(0, HALF)[None, :]
    low = tl.load(where, mask=there[:, None], other=0.0).to(tl.float32)
    return low, tl.load(where + HALF, mask=there[:, None], other=0.0).to(tl.float32)


@triton.jit
def _root_mean_square(low, high, weight, eps, HALF: tl.constexpr):
    half = tl.arange(0, HALF)
    mean = (tl.sum(low * low, 1) + tl.sum(high * high, 1)) / (2 * HALF)
    scale = tl.rsqrt(mean + eps)[:, None]
    low *= scale * tl.load(weight + half).to(tl.float32)[None, :]
    high *= scale * tl.load(weight + HALF + half).to(tl.float32)[None, :]
    return low, high


@triton.jit
def _turned(low, high, cos, sin, KIND: tl.constexpr, HALF: tl.constexpr):
    """Rotation of both halves by a token's row of the tables, in ``KIND``."""
    half = tl.arange(0, HALF)
    low, high = low.to(KIND).to(tl.float32), high.to(KIND).to(tl.float32)
    turn = tl.load(cos + half).to(tl.float32)[None, :]
    lift = tl.load(sin + HALF + half).to(tl.float32)[None, :]
    first = (low * turn).to(KIND).to(tl.float32) - high * lift
    second = (high * turn).to(KIND).to(tl.float32) + low * lift
    return first.to(KIND), second.to(KIND)


@triton.jit
def _joined(low, high, ROWS: tl.constexpr, HALF: tl.constexpr):
    return tl.reshape(tl.permute(tl.join(low, high), (0, 2, 1)), (ROWS, 2 * HALF))


@triton.jit
def _ask(x, norm, cos, sin, out, token, chunk, eps, HEADS: tl.constexpr, CHUNK: tl.constexpr, HALF: tl.constexpr):
    """Query heads of one chunk into ``out`` [T, heads, D]."""
    KIND: tl.constexpr = out.dtype.element_ty
    head, half = chunk * CHUNK + tl.arange(0, CHUNK), tl.arange(0, HALF)
    there = head < HEADS
    low, high = _halves(x + head * 2 * HALF, there, HALF)
    low, high = _root_mean_square(low, high, norm, eps, HALF)
    low, high = _turned(low, high, cos, sin, KIND, HALF)
    out += (token * HEADS + head[:, None]) * 2 * HALF + half[None, :]
    tl.store(out, low, mask=there[:, None])
    tl.store(out + HALF, high, mask=there[:, None])


@triton.jit
def _keep(
    x, norm, cos, sin, k, v, eps,
    KV_HEADS: tl.constexpr, KV_WIDE: tl.constexpr, HALF: tl.constexpr, KIND: tl.constexpr,
):  # fmt: skip
    """Keys and values, which follow each other in ``x``, into their slot at ``k`` and ``v``."""
    head, half = tl.arange(0, KV_WIDE), tl.arange(0, HALF)
    there = head < KV_HEADS
    where = head[:, None] * 2 * HALF + half[None, :]
    low, high = _halves(x + head * 2 * HALF, there, HALF)
    low, high = _root_mean_square(low, high, norm, eps, HALF)
    low, high = _turned(low, high, cos, sin, KIND, HALF)
    tl.store(k + where, low.to(k.dtype.element_ty), mask=there[:, None])
    tl.store(k + where + HALF, high.to(k.dtype.element_ty), mask=there[:, None])
    low, high = _halves(x + (KV_HEADS + head) * 2 * HALF, there, HALF)
    tl.store(v + where, low.to(v.dtype.element_ty), mask=there[:, None])
    tl.store(v + where + HALF, high.to(v.dtype.element_ty), mask=there[:, None])


@triton.jit
def _keep_index(
    x, norm, bias, cos, sin, values, scale_out, eps, root,
    HALF: tl.constexpr, STEPS: tl.constexpr, FP8: tl.constexpr, KIND: tl.constexpr,
):  # fmt: skip
    """The index key, after a layer norm in float32, into its slot at ``values`` and ``scale_out``."""
    one, half = tl.arange(0, 1), tl.arange(0, HALF)
    low, high = _halves(x + one, one == 0, HALF)
    mean = ((tl.sum(low, 1) + tl.sum(high, 1)) / (2 * HALF))[:, None]
    low, high = low - mean, high - mean
    scale = tl.rsqrt((tl.sum(low * low, 1) + tl.sum(high * high, 1)) / (2 * HALF) + eps)[:, None]
    low = low * scale * tl.load(norm + half).to(tl.float32)[None, :] + tl.load(bias + half).to(tl.float32)[None, :]
    high = high * scale * tl.load(norm + HALF + half).to(tl.float32)[None, :]
    high += tl.load(bias + HALF + half).to(tl.float32)[None, :]
    low, high = _turned(low, high, cos, sin, KIND, HALF)
    if FP8:
        code, size = as_codes(_joined(low, high, 1, HALF), root, 2 * HALF, STEPS, 1)
        tl.store(values + tl.arange(0, 2 * HALF)[None, :], code.to(tl.uint8))
        tl.store(scale_out + one, size)
    else:
        tl.store(values + half[None, :], low.to(values.dtype.element_ty))
        tl.store(values + HALF + half[None, :], high.to(values.dtype.element_ty))


@triton.jit
def _ask_index(
    x, norm, cos, sin, out, weight_out, eps, gate_scale, root,
    HEADS: tl.constexpr, WIDE: tl.constexpr, HALF: tl.constexpr, STEPS: tl.constexpr, FP8: tl.constexpr,
    KIND: tl.constexpr,
):  # fmt: skip
    """A token's index queries and gates, which follow each other in ``x``."""
    head, half = tl.arange(0, WIDE), tl.arange(0, HALF)
    there = head < HEADS
    low, high = _halves(x + head * 2 * HALF, there, HALF)
    low, high = _root_mean_square(low, high, norm, eps, HALF)
    low, high = _turned(low, high, cos, sin, KIND, HALF)
    weight = tl.load(x + HEADS * 2 * HALF + head, mask=there, other=0.0).to(tl.float32) * gate_scale
    out += head[:, None] * 2 * HALF
    if FP8:
        code, size = as_codes(_joined(low, high, WIDE, HALF), root, 2 * HALF, STEPS, WIDE)
        tl.store(out + tl.arange(0, 2 * HALF)[None, :], code.to(tl.uint8), mask=there[:, None])
        weight *= size
    else:
        tl.store(out + half[None, :], low, mask=there[:, None])
        tl.store(out + HALF + half[None, :], high, mask=there[:, None])
    tl.store(weight_out + head, weight, mask=there)


@triton.jit(do_not_specialize_on_alignment=["slots"])
def prepare_token(
    qkv, index_q, index_key, main_cos, main_sin, index_cos, index_sin, slots,
    q_norm, k_norm, index_q_norm, index_k_norm, index_k_bias,
    q_out, k_cache, v_cache, index_out, weight_out, index_values, index_scales,
    qkv_row, index_q_row, index_key_row, k_slot, v_slot, index_slot, eps, index_eps, gate_scale, root,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, KV_WIDE: tl.constexpr, DIM: tl.constexpr, CHUNK: tl.constexpr,
    INDEX_HEADS: tl.constexpr, INDEX_WIDE: tl.constexpr, INDEX_DIM: tl.constexpr, STEPS: tl.constexpr,
    FP8: tl.constexpr,
):  # fmt: skip
    token, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    HALF: tl.constexpr = DIM // 2
    INDEX_HALF: tl.constexpr = INDEX_DIM // 2
    KIND: tl.constexpr = q_out.dtype.element_ty
    CHUNKS: tl.constexpr = (HEADS + CHUNK - 1) // CHUNK
    qkv += token * qkv_row
    main_cos += token * DIM
    main_sin += token * DIM
    index_cos += token * INDEX_DIM
    index_sin += token * INDEX_DIM
    if part == 0:
        slot = tl.load(slots + token).to(tl.int64)
        _keep(
            qkv + HEADS * DIM, k_norm, main_cos, main_sin, k_cache + slot * k_slot, v_cache + slot * v_slot, eps,
            KV_HEADS, KV_WIDE, HALF, KIND,
        )  # fmt: skip
        _keep_index(
            index_key + token * index_key_row, index_k_norm, index_k_bias, index_cos, index_sin,
            index_values + slot * index_slot, index_scales + slot, index_eps, root, INDEX_HALF, STEPS, FP8, KIND,
        )  # fmt: skip
    elif part <= CHUNKS:
        _ask(qkv, q_norm, main_cos, main_sin, q_out, token, part - 1, eps, HEADS, CHUNK, HALF)
    else:
        _ask_index(
            index_q + token * index_q_row, index_q_norm, index_cos, index_sin,
            index_out + token * INDEX_HEADS * INDEX_DIM, weight_out + token * INDEX_HEADS, index_eps, gate_scale, root,
            INDEX_HEADS, INDEX_WIDE, INDEX_HALF, STEPS, FP8, KIND,
        )  # fmt: skip


def prepare(
    projected: Projected, norms: Norms, main: Rotation, index: Rotation, k_cache: Tensor, v_cache: Tensor,
    index_k: IndexKeys, slots: Tensor,
) -> Prepared:  # fmt: skip
    """See :func:`keyeloop.model_backend.kernels.glue.prepare`."""
    qkv, index_q, index_key = projected.qkv, projected.index_q, projected.index_key
    tokens, (_, kv_heads, dim), index_dim = qkv.shape[0], k_cache.shape, index_key.shape[1]
    heads, fp8 = qkv.shape[1] // dim - 2 * kv_heads, index_k.scales is not None
    q = torch.empty(tokens, heads, dim, dtype=qkv.dtype, device=qkv.device)
    index_heads = 1 if index_q is None else index_q.shape[1] // (index_dim + 1)
    codes = weights = q
    if index_q is not None:
        kind = torch.uint8 if fp8 else qkv.dtype
        codes = torch.empty(tokens, index_heads, index_dim, dtype=kind, device=qkv.device)
        weights = torch.empty(tokens, index_heads, dtype=torch.float32, device=qkv.device)
    values, scales = index_k.values, index_k.scales
    chunk = min(HEADS_AT_ONCE, triton.next_power_of_2(heads))
    if tokens:
        asked = index_key if index_q is None else index_q
        prepare_token[(tokens, 1 + triton.cdiv(heads, chunk) + (index_q is not None))](
            qkv, asked, index_key, main.cos, main.sin, index.cos, index.sin, slots,
            norms.q, norms.k, norms.index_q, norms.index_k, norms.index_k_bias,
            q, k_cache, v_cache, codes, weights, values if scales is None else values.view(torch.uint8),
            values if scales is None else scales,
            qkv.stride(0), asked.stride(0), index_key.stride(0), k_cache.stride(0), v_cache.stride(0), values.stride(0),
            norms.eps, norms.index_eps, index_dim**-0.5, math.sqrt(index_dim),
            heads, kv_heads, triton.next_power_of_2(kv_heads), dim, chunk,
            index_heads, triton.next_power_of_2(index_heads), index_dim, index_dim.bit_length() - 1, fp8,
            num_warps=WARPS,
        )  # fmt: skip
    if index_q is None:
        return Prepared(q, None, None)
    return Prepared(q, codes.view(FP8) if fp8 else codes, weights)
