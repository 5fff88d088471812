"""What fits into this machine's memory, and what would make more fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from keyeloop.model_backend.keye.describe import ModelDescription
from keyeloop.model_backend.sglang.serve.gpus import LEAST_CAPABILITY, Gpu
from keyeloop.model_backend.sglang.serve.memory import MIB, Need, groups, need
from keyeloop.model_backend.sglang.serve.settings import ServeSettings
from keyeloop.runtime.errors import ConfigError, InputError, OperatorError

LEAST_CONTEXT = 4096
"""A server with less room than this is of no use to an agent: a tool's result alone may be longer."""
CPU_SHARE = 0.5
"""Of the memory that is free; the rest is for activations, which are many in float32, and for others."""
CPU_REQUESTS = 2
"""Whole contexts that a CPU's cache holds at once: it is for tests."""
BESIDE_GPUS = "or serve quantised weights with llama-server (docs/using.md, Models)"


@dataclass(frozen=True)
class Room:
    """What fits. Bytes are those of each GPU of a group, or of the machine for a CPU."""

    need: Need
    share: float
    """Of the free memory, what is used."""
    free_bytes: int
    usable_bytes: int
    largest_context: int
    cache_tokens: int
    """All requests together."""
    context_tokens: int
    """What the server is started with."""


def room_on_gpus(description: ModelDescription, settings: ServeSettings, gpus: Sequence[Gpu]) -> Room:
    """What the first ``tensor_parallel`` GPUs hold.

    Raises ConfigError for GPUs that are missing or too old, OperatorError, with what would fit, where the weights or
    a useful context do not, InputError for a wished context that does not.
    """
    count = settings.tensor_parallel
    if count not in groups(description.config):
        raise ConfigError(f"--tensor-parallel {count} does not divide the {description.config.num_key_value_heads} key "
                          f"heads of {description.name}: take one of {', '.join(map(str, groups(description.config)))}"
                          )  # fmt: skip
    free = min(gpu.free_bytes for gpu in check_gpus(settings, gpus))
    room = _room(description, settings, free)
    if room.largest_context < LEAST_CONTEXT:
        raise OperatorError(_too_small(description, settings, gpus, room))
    return _with_context(room, settings)


def check_gpus(settings: ServeSettings, gpus: Sequence[Gpu]) -> Sequence[Gpu]:
    """The first ``tensor_parallel`` GPUs. ConfigError where they are missing or too old."""
    count = settings.tensor_parallel
    if not gpus:
        raise ConfigError("no NVIDIA GPU is visible here (nvidia-smi, CUDA_VISIBLE_DEVICES): serve where there is one, "
                          f"take --device cpu to try it with keye-tiny, {BESIDE_GPUS}")  # fmt: skip
    if len(gpus) < count:
        names = "; ".join(gpu.name for gpu in gpus)
        raise ConfigError(f"--tensor-parallel {count} needs {count} GPUs, visible here: {len(gpus)} ({names})")
    chosen = gpus[:count]
    old = [gpu for gpu in chosen if gpu.capability < LEAST_CAPABILITY]
    if old:
        raise ConfigError(f"{old[0].name} has compute capability {'.'.join(map(str, old[0].capability))}: bfloat16 "
                          f"needs {'.'.join(map(str, LEAST_CAPABILITY))} or more (Ampere); {BESIDE_GPUS}")  # fmt: skip
    return chosen


def room_on_cpu(description: ModelDescription, settings: ServeSettings, available: int) -> Room:
    """What ``available`` bytes of memory hold in float32. Raises as :func:`room_on_gpus` does."""
    check_cpu(settings)
    room = _room(description, settings, available, float32=True)
    if room.largest_context < LEAST_CONTEXT:
        raise OperatorError(f"{description.name} in float32 takes {room.need.weights / 1e9:.1f} GB, and "
                            f"{available / 1e9:.1f} GB of memory are free: the CPU path is for keye-tiny, for tests; "
                            f"take a GPU, {BESIDE_GPUS}")  # fmt: skip
    chosen = _with_context(room, settings)
    return replace(chosen, cache_tokens=min(chosen.cache_tokens, CPU_REQUESTS * chosen.context_tokens))


def check_cpu(settings: ServeSettings) -> None:
    """ConfigError for options that a CPU does not take."""
    if settings.tensor_parallel != 1 or settings.quantization != "none":
        raise ConfigError("a CPU takes neither --tensor-parallel nor --quantization: it is for tests, in float32")


def available_bytes() -> int:
    """Memory of this machine that a new program can have. ConfigError where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        raise ConfigError("this system does not tell its free memory (/proc/meminfo): --device cpu needs Linux"
                          ) from None  # fmt: skip


def _need(description: ModelDescription, settings: ServeSettings, float32: bool) -> Need:
    wished = settings.picture_cache_mib
    return need(
        description,
        gpus=settings.tensor_parallel,
        quantization=settings.quantization,
        index=settings.index,
        picture_cache_bytes=None if wished is None else wished * MIB,
        float32=float32,
    )


def _room(description: ModelDescription, settings: ServeSettings, free: int, *, float32: bool = False) -> Room:
    wanted = _need(description, settings, float32)
    share = CPU_SHARE if float32 else settings.memory_share
    usable = int(free * share)
    largest = wanted.context(usable, description.config.max_position_embeddings)
    return Room(wanted, share, free, usable, largest, wanted.cache_tokens(usable) if largest else 0, largest)


def _with_context(room: Room, settings: ServeSettings) -> Room:
    wished = settings.context_tokens
    if wished is None:
        return room
    if wished > room.largest_context:
        raise InputError(f"--context-length {wished:,} does not fit: {room.largest_context:,} is the largest here "
                         f"(a token takes {room.need.token:,} bytes of cache)")  # fmt: skip
    return replace(room, context_tokens=wished)


def _too_small(description: ModelDescription, settings: ServeSettings, gpus: Sequence[Gpu], room: Room) -> str:
    gpu = gpus[0]
    what = "while its weights are loaded" if room.need.loading > room.usable_bytes >= room.need.weights else "to serve"
    least = max(room.need.loading, room.need.weights + room.need.pictures + LEAST_CONTEXT * room.need.token)
    cures = list(_cures(description, settings, gpus))
    return (
        f"{description.name} does not fit on {settings.tensor_parallel} x {gpu.name}: {what} it needs "
        f"{least / 1e9:.1f} GB on each, and {room.usable_bytes / 1e9:.1f} GB are usable ({settings.memory_share:.0%} "
        f"of {room.free_bytes / 1e9:.1f} GB free of {gpu.total_bytes / 1e9:.1f}); "
        + ("; ".join([*cures, BESIDE_GPUS]) if cures else f"take a larger GPU, {BESIDE_GPUS}")
    )


def _cures(description: ModelDescription, settings: ServeSettings, gpus: Sequence[Gpu]) -> Iterator[str]:
    """What would fit: the same GPUs empty, fp8, more GPUs of this kind, here or elsewhere."""

    def largest(changed: ServeSettings, free: int) -> int:
        return _room(description, changed, free).largest_context

    free = min(gpu.free_bytes for gpu in gpus[: settings.tensor_parallel])
    total = min(gpu.total_bytes for gpu in gpus[: settings.tensor_parallel])
    if largest(settings, total) >= LEAST_CONTEXT:
        used = (total - free) / 1e9
        yield f"end what else uses the GPU ({used:.1f} GB): then {largest(settings, total):,} tokens fit"
    if settings.quantization == "none":
        quantised = replace(settings, quantization="fp8")
        if largest(quantised, free) >= LEAST_CONTEXT:
            yield f"--quantization fp8 makes room for {largest(quantised, free):,} tokens"
    for count in groups(description.config):
        split = replace(settings, tensor_parallel=count)
        if count > settings.tensor_parallel and largest(split, total) >= LEAST_CONTEXT:
            here = count <= len(gpus)
            yield (f"--tensor-parallel {count} makes room for {largest(split, total):,} tokens"
                   + ("" if here else f", with {count} such GPUs"))  # fmt: skip
            break
