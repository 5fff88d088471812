"""What a model remembers of tokens it has read: keys, values and index keys of every layer."""

from __future__ import annotations

import torch
from torch import Tensor

from keyeloop.model_backend.keye.config import KeyeConfig


class KVCache:
    """Preallocated buffers for one sequence, growing by doubling. For inference: gradients do not pass through it.

    ``length`` counts tokens that every layer holds. A forward pass that dies half-way leaves it as it was.
    """

    def __init__(
        self, config: KeyeConfig, *, dtype: torch.dtype, device: torch.device | str = "cpu", capacity: int = 1024
    ) -> None:
        layers, width = config.num_hidden_layers, (capacity, config.num_key_value_heads, config.head_dim)
        self.length = 0
        self._keys = [torch.empty(width, dtype=dtype, device=device) for _ in range(layers)]
        self._values = [torch.empty(width, dtype=dtype, device=device) for _ in range(layers)]
        index = (capacity, config.indexer.head_dim)
        self._index = [torch.empty(index, dtype=dtype, device=device) for _ in range(layers)]

    @property
    def capacity(self) -> int:
        """Tokens that fit before the buffers grow."""
        return self._index[0].shape[0]

    def reserve(self, tokens: int) -> None:
        """Make room for ``tokens`` more."""
        needed = self.length + tokens
        if needed <= self.capacity:
            return
        capacity = max(needed, 2 * self.capacity)
        self._keys = [_grown(old, capacity, self.length) for old in self._keys]
        self._values = [_grown(old, capacity, self.length) for old in self._values]
        self._index = [_grown(old, capacity, self.length) for old in self._index]

    def put(self, layer: int, keys: Tensor, values: Tensor, index_keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Write one layer's new tokens behind ``length`` and return the whole layer.

        ``keys`` and ``values`` are [T, kv_heads, D], ``index_keys`` [T, index D]; the same with S = length + T rows
        comes back, as views. The tokens count once :meth:`advance` is called.
        """
        stop = self.length + keys.shape[0]
        self._keys[layer][self.length : stop] = keys
        self._values[layer][self.length : stop] = values
        self._index[layer][self.length : stop] = index_keys
        return self._keys[layer][:stop], self._values[layer][:stop], self._index[layer][:stop]

    def advance(self, tokens: int) -> None:
        """Count ``tokens`` that all layers have written."""
        self.length += tokens

    def truncate(self, length: int) -> None:
        """Forget everything behind the first ``length`` tokens; the rest stays as it is."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate {self.length} cached tokens to {length}")
        self.length = length


def _grown(old: Tensor, capacity: int, length: int) -> Tensor:
    new = torch.empty((capacity, *old.shape[1:]), dtype=old.dtype, device=old.device)
    new[:length] = old[:length]
    return new
