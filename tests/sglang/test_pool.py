"""Index keys go wherever SGLang moves keys and values."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import pytest
import torch

from keyeloop.model_backend.kernels.reference import store_index_keys
from keyeloop.runtime.errors import ConfigError

pytestmark = [pytest.mark.sglang, pytest.mark.timeout(300), pytest.mark.usefixtures("sglang_here")]
SLOTS, LAYERS, DIM = 32, 2, 64


def pool_of(mode: Literal["exact", "fp8"], **settings: Any) -> Any:
    """A pool on the CPU with something in the index keys of every slot."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from keyeloop.model_backend.sglang.plugin.pool import KeyePool

        pool = KeyePool(
            SLOTS, page_size=1, dtype=torch.float32, head_num=2, head_dim=4, layer_num=LAYERS, device="cpu",
            enable_memory_saver=False, enable_alt_stream=False, index_dim=DIM, mode=mode, index_dtype=torch.float32,
            **settings,
        )  # fmt: skip
    torch.manual_seed(0)
    for layer in range(LAYERS):
        store_index_keys(pool.index_of(layer), torch.randn(SLOTS, DIM), torch.arange(1, SLOTS + 1))
        pool.k_buffer[layer].copy_(torch.randn_like(pool.k_buffer[layer]))
    return pool


def row(pool: Any, layer: int, slot: int) -> list[float]:
    """What a slot holds: a key, an index key and its scale."""
    index = pool.index_of(layer)
    scale = [] if index.scales is None else [index.scales[slot].item()]
    return [*pool.k_buffer[layer][slot].flatten().tolist(), *index.values[slot].float().tolist(), *scale]


@pytest.mark.parametrize("mode", ("exact", "fp8"))
def test_moved_slots_take_their_index_keys_along(
    mode: Literal["exact", "fp8"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SGLANG_NATIVE_MOVE_KV_CACHE", "1")  # SGLang's other way is a kernel
    pool = pool_of(mode)
    before = [row(pool, layer, slot) for layer in range(LAYERS) for slot in (3, 4)]
    pool.move_kv_cache(torch.tensor([20, 21]), torch.tensor([3, 4]))
    assert [row(pool, layer, slot) for layer in range(LAYERS) for slot in (20, 21)] == before


@pytest.mark.parametrize("mode", ("exact", "fp8"))
def test_a_paused_request_comes_back_whole_in_other_slots(mode: Literal["exact", "fp8"]) -> None:
    pool = pool_of(mode)
    before = [row(pool, layer, slot) for layer in range(LAYERS) for slot in (5, 6, 7)]
    copy = pool.get_cpu_copy(torch.tensor([5, 6, 7]))
    pool.load_cpu_copy(copy, torch.tensor([25, 26, 27]))
    assert [row(pool, layer, slot) for layer in range(LAYERS) for slot in (25, 26, 27)] == before


@pytest.mark.parametrize(("mode", "bytes_each"), [("exact", 4 * DIM), ("fp8", DIM + 4)])
def test_index_keys_take_the_bytes_that_were_counted(mode: Literal["exact", "fp8"], bytes_each: int) -> None:
    from keyeloop.model_backend.kernels.index_keys import bytes_per_token

    pool = pool_of(mode)
    assert pool.index_bytes() == LAYERS * pool.k_buffer[0].shape[0] * bytes_each
    assert bytes_per_token(DIM, mode, torch.float32) == bytes_each


def test_a_pool_that_grows_after_it_was_made_is_refused() -> None:
    with pytest.raises(ConfigError, match="SGLANG_ENABLE_POST_CAPTURE_KV_SIZING"):
        pool_of("exact", post_capture_active=True)
