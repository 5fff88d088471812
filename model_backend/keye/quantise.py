"""The shipped indexer's number format: Hadamard spreading, then e4m3 with one power-of-two scale for 64 values."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from keyeloop.runtime.errors import ConfigError

BLOCK = 64
"""Values that share one scale: a whole index head."""
_E4M3_MAX = 448.0
_AMAX_MIN = 1e-4


def hadamard(x: Tensor) -> Tensor:
    """Walsh-Hadamard transform of the last axis times ``D^-0.5`` (orthogonal: dot products stay the same).

    Computed in float32 and rounded to bfloat16, as the shipped kernel does; ``D`` must be a power of two.
    """
    size = x.shape[-1]
    if size & (size - 1):
        raise ConfigError(f"sa_config.indexer_head_dim: {size} is no power of two, as fp8 needs; use mode exact")
    shape = x.shape
    spread = x.to(torch.bfloat16).float()
    step = 1
    while step < size:
        first, second = spread.reshape(-1, size // (2 * step), 2, step).unbind(2)
        spread = torch.stack((first + second, first - second), 2)
        step *= 2
    spread = spread.reshape(shape) / math.sqrt(size)
    return spread.to(torch.bfloat16)


def quantise(x: Tensor) -> tuple[Tensor, Tensor]:
    """E4M3 values [..., D] and float32 scales [..., 1] of blocks of ``D`` <= 64; scales are powers of two (ue8m0).

    ``amax = max(|x|, 1e-4)``, ``scale = 2^ceil(log2(amax / 448))``, ``value = x / scale`` clamped to +-448. The
    exponent comes from the float's bits, so exact powers of two are never rounded up.
    """
    if x.shape[-1] > BLOCK:
        raise ConfigError(f"sa_config.indexer_head_dim: {x.shape[-1]} is over {BLOCK}, the block of the fp8 indexer; "
                          "use mode exact")  # fmt: skip
    values = x.float()
    amax = values.abs().amax(-1, keepdim=True).clamp_min(_AMAX_MIN)
    mantissa, exponent = torch.frexp(amax / _E4M3_MAX)
    scale = torch.ldexp(torch.ones_like(amax), exponent - (mantissa == 0.5).int())
    return (values / scale).clamp(-_E4M3_MAX, _E4M3_MAX).to(torch.float8_e4m3fn), scale
