"""What fits: the published model's arithmetic on known GPUs, and the advice where it does not."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from keyeloop.model_backend.keye.describe import ModelDescription, describe
from keyeloop.model_backend.keye.presets import keye_30b
from keyeloop.model_backend.sglang.serve.gpus import Gpu
from keyeloop.model_backend.sglang.serve.memory import MIB, groups, need, picture_cache, token_bytes
from keyeloop.model_backend.sglang.serve.room import room_on_cpu, room_on_gpus
from keyeloop.model_backend.sglang.serve.settings import ServeSettings, read_settings
from keyeloop.runtime.errors import ConfigError, InputError, OperatorError

GIB = 1 << 30
SETTINGS = ServeSettings("keye-vl-2.0-30b-a3b")


@cache
def published() -> ModelDescription:
    return describe("keye-vl-2.0-30b-a3b")


def gpus(
    name: str, gib: float, count: int = 1, used_gib: float = 0.5, capability: tuple[int, int] = (9, 0)
) -> list[Gpu]:
    free = int((gib - used_gib) * GIB)
    return [Gpu(index, f"GPU-{index}", name, int(gib * GIB), free, capability) for index in range(count)]


def test_bytes_of_a_token() -> None:
    config = keye_30b()
    assert token_bytes(config, index="fp8") == 98_304 + 3_264 == 101_568
    assert token_bytes(config) == 98_304 + 6_144
    assert [token_bytes(config, gpus=count, index="fp8") for count in (2, 4)] == [52_416, 27_840]
    assert groups(config) == (1, 2, 4)


def test_pictures_of_the_longest_video_and_a_quarter() -> None:
    assert picture_cache(keye_30b()) == 900 * MIB  # 184,320 x 1.25 x 2,048 x 2 bytes = 900.0 MiB
    assert picture_cache(replace(keye_30b(), max_position_embeddings=8192)) == 40 * MIB


def test_an_h200_holds_the_whole_context() -> None:
    room = room_on_gpus(published(), SETTINGS, gpus("NVIDIA H200", 139.8))
    assert room.largest_context == room.context_tokens == 262_144
    by_hand = (int(139.3 * GIB * 0.85) - 2 * 31_122_082_160 - 900 * MIB) // 104_448
    assert 0 <= by_hand - room.cache_tokens < 64


def test_eighty_gigabytes_hold_less_and_fp8_index_keys_more() -> None:
    settings = replace(SETTINGS, memory_share=0.9)
    exact = room_on_gpus(published(), settings, gpus("NVIDIA H100 80GB HBM3", 79.6))
    assert 100_000 < exact.largest_context < 130_000 and exact.largest_context % 64 == 0
    small = room_on_gpus(published(), replace(settings, index="fp8"), gpus("NVIDIA H100 80GB HBM3", 79.6))
    assert small.largest_context / exact.largest_context == pytest.approx(104_448 / 101_568, abs=2e-3)
    assert (
        room_on_gpus(published(), replace(settings, context_tokens=65_536), gpus("H100", 79.6)).context_tokens == 65_536
    )
    with pytest.raises(InputError, match=f"262,144 does not fit: {exact.largest_context:,} is the largest"):
        room_on_gpus(published(), replace(settings, context_tokens=262_144), gpus("H100", 79.6))


def test_two_gpus_hold_half_of_what_is_split_and_all_of_what_is_not() -> None:
    parts = {part.name: part.parameters for part in published().parts}
    one, two = need(published()), need(published(), gpus=2)
    whole = sum(parts[name] for name in ("vision tower", "projector", "indexer", "routers", "norms"))
    assert one.weights == 2 * published().parameters
    assert two.weights - 2 * whole == pytest.approx((one.weights - 2 * whole) / 2, abs=100)
    assert two.pictures == one.pictures and two.token == 48 * (2 * 2 * 128 * 2 + 128)


def test_fp8_shrinks_what_serves_and_not_what_loads() -> None:
    parts = {part.name: part.parameters for part in published().parts}
    fp8 = need(published(), quantization="fp8")
    assert fp8.loading == 2 * published().parameters
    assert fp8.loading - fp8.weights == parts["experts"] + parts["attention"]
    settings = replace(SETTINGS, quantization="fp8")
    assert room_on_gpus(published(), settings, gpus("H100", 79.6)).largest_context == 262_144
    with pytest.raises(OperatorError, match=r"while its weights are loaded it needs 62.2 GB"):
        room_on_gpus(published(), settings, gpus("L40S", 44.5, capability=(8, 9)))


@pytest.mark.parametrize(
    ("here", "settings", "said"),
    [
        (gpus("RTX 3060", 12, capability=(8, 6)), SETTINGS, r"63\.6 GB on each.*take a larger GPU, or serve quantised"),
        (gpus("L40S", 44.5, 2), SETTINGS, r"--tensor-parallel 2 makes room for [\d,]+ tokens; or serve"),
        (gpus("L40S", 44.5), SETTINGS, r"--tensor-parallel 2 makes room for [\d,]+ tokens, with 2 such GPUs"),
        (gpus("H100", 79.6, used_gib=20), SETTINGS, r"end what else uses the GPU \(21\.5 GB\): then [\d,]+ tokens fit"),
        (gpus("A100", 69.6, used_gib=0.4), SETTINGS, r"--quantization fp8 makes room for [\d,]+ tokens"),
    ],
    ids=["far too small", "two are here", "two would do", "used by others", "fp8"],
)  # fmt: skip
def test_what_does_not_fit_is_told_with_what_would(here: list[Gpu], settings: ServeSettings, said: str) -> None:
    with pytest.raises(OperatorError, match=said):
        room_on_gpus(published(), settings, here)


@pytest.mark.parametrize(
    ("here", "settings", "said"),
    [
        ([], SETTINGS, "no NVIDIA GPU is visible"),
        (gpus("H200", 139), replace(SETTINGS, tensor_parallel=2), "needs 2 GPUs, visible here: 1 "),
        (gpus("H200", 139, 8), replace(SETTINGS, tensor_parallel=8), "does not divide the 4 key heads.*1, 2, 4"),
        (gpus("Quadro RTX 8000", 48, capability=(7, 5)), SETTINGS, r"compute capability 7\.5: bfloat16 needs 8\.0"),
    ],
)
def test_what_cannot_serve_is_told(here: list[Gpu], settings: ServeSettings, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        room_on_gpus(published(), settings, here)


def test_a_cpu_serves_the_embedded_model_only() -> None:
    tiny = describe("keye-tiny")
    room = room_on_cpu(tiny, ServeSettings("keye-tiny", device="cpu"), 8 * GIB)
    assert room.context_tokens == tiny.config.max_position_embeddings and room.cache_tokens == 2 * room.context_tokens
    assert room.need.weights == 4 * tiny.parameters and room.need.token == 8 * (2 * 2 * 32 + 64) * 4
    with pytest.raises(OperatorError, match=r"in float32 takes 124\.5 GB, and 8\.6 GB of memory are free"):
        room_on_cpu(published(), SETTINGS, 8 * GIB)
    with pytest.raises(ConfigError, match="neither --tensor-parallel nor --quantization"):
        room_on_cpu(tiny, ServeSettings("keye-tiny", quantization="fp8"), 8 * GIB)


def test_unknown_words_are_told() -> None:
    with pytest.raises(ConfigError, match="--quantization int3: unknown; take none or fp8"):
        read_settings(model="keye-tiny", quantization="int3")
    assert read_settings(model="keye-tiny", index="fp8").index == "fp8"
