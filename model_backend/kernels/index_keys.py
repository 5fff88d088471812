"""What the indexer remembers of every token: one small key, in memory addressed by slots."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from keyeloop.model_backend.keye.indexer import IndexerMode
from keyeloop.runtime.errors import ConfigError

FP8 = torch.float8_e4m3fn


@dataclass(frozen=True)
class IndexKeys:
    """Index keys of all slots of one layer.

    ``values`` [slots, D] in the model's type for mode ``exact``; e4m3 with float32 ``scales`` [slots] for mode ``fp8``
    (D + 4 bytes a token, as in the shipped cache).
    """

    values: Tensor
    scales: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.values.dtype == FP8) != (self.scales is not None):
            raise ConfigError(
                f"index keys of {self.values.dtype} with {'no ' if self.scales is None else ''}scales: "
                "mode fp8 has e4m3 values and scales, mode exact has neither"
            )

    @classmethod
    def zeros(
        cls, slots: int, dim: int, mode: IndexerMode, dtype: torch.dtype, device: torch.device | str
    ) -> IndexKeys:
        """Empty memory; ``dtype`` is that of the model and counts in mode ``exact`` only."""
        if mode == "exact":
            return cls(torch.zeros(slots, dim, dtype=dtype, device=device))
        values = torch.zeros(slots, dim, dtype=torch.uint8, device=device).view(FP8)
        return cls(values, torch.zeros(slots, dtype=torch.float32, device=device))

    @property
    def mode(self) -> IndexerMode:
        """Which indexer these keys belong to."""
        return "exact" if self.scales is None else "fp8"


def bytes_per_token(dim: int, mode: IndexerMode, dtype: torch.dtype) -> int:
    """Bytes that one token's index key takes in one layer."""
    return dim * dtype.itemsize if mode == "exact" else dim + 4
