"""What this machine reaches on this day: the speeds that floors are computed from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from timing import DEVICE, median_ms

SIDE = 8192
COPY_BYTES = 4 << 30


@dataclass(frozen=True)
class Ceilings:
    """Bytes a second, read and written, of a large copy; operations a second of square matrix products."""

    copy_bytes_s: float
    bf16_flop_s: float
    fp8_flop_s: float

    def floor_ms(self, nbytes: float = 0.0, bf16_flop: float = 0.0, fp8_flop: float = 0.0) -> float:
        """Least time of work that moves ``nbytes`` to or from memory and multiplies this much, all at once."""
        return 1e3 * max(nbytes / self.copy_bytes_s, bf16_flop / self.bf16_flop_s + fp8_flop / self.fp8_flop_s)


@cache
def ceilings() -> Ceilings:
    """Measured once in a process; takes about a second and 9 GB. Without CUDA: made up, for trying a module only."""
    if DEVICE.type != "cuda":
        return Ceilings(1e10, 1e11, 1e11)
    copy_ms = median_ms(_copy())
    left, right = (torch.randn(SIDE, SIDE, dtype=torch.bfloat16, device=DEVICE) for _ in range(2))
    bf16_ms = median_ms(lambda: left @ right)
    fp8_ms = median_ms(_fp8_product(left, right))
    torch.cuda.empty_cache()
    flop = 2.0 * SIDE**3 * 1e3
    return Ceilings(2e3 * COPY_BYTES / copy_ms, flop / bf16_ms, flop / fp8_ms)


def _copy() -> Callable[[], Any]:
    source = torch.zeros(COPY_BYTES, dtype=torch.int8, device=DEVICE)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def _fp8_product(left: torch.Tensor, right: torch.Tensor) -> Callable[[], Any]:
    one = torch.ones((), device=DEVICE)
    a, b = left.to(torch.float8_e4m3fn), right.to(torch.float8_e4m3fn).t()
    return lambda: torch._scaled_mm(a, b, scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True)
