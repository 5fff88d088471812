"""Triton: Hadamard spreading and rounding to e4m3 of rows of an indexer's keys or queries, and storing them by slot.

Bit for bit what ``keyeloop.model_backend.keye.quantise`` computes; e4m3 is made from the float's bits, so that it needs
no hardware support of the format.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 16


@triton.jit
def as_bfloat16(x):
    """Float32 rounded to bfloat16's values, to even, by its bits: the same on every device and in the interpreter."""
    bits = x.to(tl.int32, bitcast=True)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & -65536).to(tl.float32, bitcast=True)


@triton.jit
def as_codes(x, root, DIM: tl.constexpr, STEPS: tl.constexpr, ROWS: tl.constexpr):
    """E4m3 codes (as integers) [ROWS, DIM] and float32 scales [ROWS] of rows ``x``, spread by a Hadamard transform."""
    spread = as_bfloat16(x.to(tl.float32))
    for step in tl.static_range(STEPS):
        pairs = tl.reshape(spread, (ROWS, DIM >> (step + 1), 2, 1 << step))
        first, second = tl.split(tl.permute(pairs, (0, 1, 3, 2)))
        joined = tl.join(first + second, first - second)
        spread = tl.reshape(tl.permute(joined, (0, 1, 3, 2)), (ROWS, DIM))
    spread = as_bfloat16(tl.math.div_rn(spread, root + tl.zeros_like(spread)))
    largest = tl.maximum(tl.max(tl.abs(spread), 1), 1e-4)
    bits = tl.math.div_rn(largest, 448.0 + tl.zeros_like(largest)).to(tl.int32, bitcast=True)
    exponent = (bits >> 23) + tl.where((bits & 0x7FFFFF) != 0, 1, 0)
    scale = (exponent << 23).to(tl.float32, bitcast=True)
    value = tl.math.div_rn(spread, scale[:, None] + tl.zeros_like(spread))
    value = tl.minimum(tl.maximum(value, -448.0), 448.0)
    bits = value.to(tl.int32, bitcast=True)
    size = bits & 0x7FFFFFFF
    normal = ((size + 0x7FFFF + ((size >> 20) & 1)) >> 20) - (120 << 3)
    small = (tl.abs(value) * 512.0 + 8388608.0).to(tl.int32, bitcast=True) & 0xFF
    return tl.where(size < (121 << 23), small, normal) | ((bits >> 24) & 0x80), scale


@triton.jit(do_not_specialize=["rows"], do_not_specialize_on_alignment=["slots"])
def _spread_and_round(
    x, slots, values, scales, rows, x_stride, value_stride,
    root, BY_SLOT: tl.constexpr, DIM: tl.constexpr, STEPS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = row < rows
    dims = tl.arange(0, DIM)
    kept = tl.load(x + row[:, None].to(tl.int64) * x_stride + dims[None, :], mask=inside[:, None], other=0.0)
    code, scale = as_codes(kept, root, DIM, STEPS, ROWS)
    where = row.to(tl.int64)
    if BY_SLOT:
        where = tl.load(slots + row, mask=inside, other=0).to(tl.int64)
    tl.store(values + where[:, None] * value_stride + dims[None, :], code.to(tl.uint8), mask=inside[:, None])
    tl.store(scales + where, scale, mask=inside)


@triton.jit(do_not_specialize=["rows"], do_not_specialize_on_alignment=["slots"])
def _store_rows(
    x, slots, values, rows, x_stride, value_stride, DIM: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    dims = tl.arange(0, WIDE)
    inside = (row < rows)[:, None] & (dims < DIM)[None, :]
    kept = tl.load(x + row[:, None].to(tl.int64) * x_stride + dims[None, :], mask=inside, other=0.0)
    where = tl.load(slots + row, mask=row < rows, other=0).to(tl.int64)
    tl.store(values + where[:, None] * value_stride + dims[None, :], kept.to(values.dtype.element_ty), mask=inside)


def store_exact(values: Tensor, keys: Tensor, slots: Tensor) -> None:
    """``values[slots] = keys`` for ``values`` [slots, D] and ``keys`` [T, D]."""
    rows, dim = keys.shape
    if rows:
        _store_rows[(triton.cdiv(rows, ROWS),)](
            keys, slots, values, rows, keys.stride(0), values.stride(0), dim, triton.next_power_of_2(dim), ROWS
        )


def store_rounded(values: Tensor, scales: Tensor, keys: Tensor, slots: Tensor | None) -> None:
    """Rounds ``keys`` [T, D] into ``values`` (e4m3) and ``scales``, under ``slots`` or, without them, in order."""
    rows, dim = keys.shape
    if rows:
        _spread_and_round[(triton.cdiv(rows, ROWS),)](
            keys, slots if slots is not None else scales, values.view(torch.uint8), scales, rows, keys.stride(0),
            values.stride(0), math.sqrt(dim), slots is not None, dim, dim.bit_length() - 1, ROWS,
        )  # fmt: skip
