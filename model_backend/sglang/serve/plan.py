"""All that is known before anything starts: what would run, what fits, and what stands in the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from keyeloop.model_backend.keye.describe import describe
from keyeloop.model_backend.keye.presets import KEYE_30B
from keyeloop.model_backend.sglang.serve.checkpoint import HUB_30B, Checkpoint, check_disk, find_checkpoint
from keyeloop.model_backend.sglang.serve.command import ServerCommand, build_command
from keyeloop.model_backend.sglang.serve.gpus import Gpu, read_gpus
from keyeloop.model_backend.sglang.serve.key import state_folder
from keyeloop.model_backend.sglang.serve.memory import MIB
from keyeloop.model_backend.sglang.serve.port import check_port, is_loopback, url
from keyeloop.model_backend.sglang.serve.room import (
    Room,
    available_bytes,
    check_cpu,
    check_gpus,
    room_on_cpu,
    room_on_gpus,
)
from keyeloop.model_backend.sglang.serve.settings import ServeSettings
from keyeloop.model_backend.sglang.serve.versions import (
    RESERVES_VISION_CACHE,
    Installed,
    check_versions,
    numbers,
    read_installed,
)
from keyeloop.runtime.errors import ConfigError, KeyeloopError

T = TypeVar("T")
LEAST_SHARE, MOST_SHARE = 0.1, 0.98
NO_FOLDER = "FOLDER"
"""Stands in a printed command for a checkpoint that is not downloaded yet."""


@dataclass(frozen=True)
class Plan:
    """What would be served, and how. Parts that could not be found out are None, their reasons among ``problems``."""

    settings: ServeSettings
    device: str
    gpus: tuple[Gpu, ...]
    checkpoint: Checkpoint | None
    installed: Installed | None
    room: Room | None
    command: ServerCommand | None
    config_file: Path
    """Holds the key for the server."""
    log: Path
    url: str
    remarks: tuple[str, ...]
    problems: tuple[KeyeloopError, ...]
    """The first one stops a start, and decides its exit code."""


def make_plan(settings: ServeSettings, environment: Mapping[str, str], *, endpoint: str | None = None) -> Plan:
    """Check everything, cheap things first, and go on after a failure, so that one look tells all.

    Starts and downloads nothing (of a model of the hub: ``config.json``). Of a model that is unknown, or that the hub
    does not tell of, only what does not depend on it is checked.
    """
    problems: list[KeyeloopError] = []

    def tried(check: Callable[[], T]) -> T | None:
        try:
            return check()
        except KeyeloopError as problem:
            problems.append(problem)
            return None

    tried(lambda: _check_options(settings))
    tried(lambda: check_port(settings.host, settings.port))
    gpus = tried(lambda: () if settings.device == "cpu" else read_gpus(environment)) or ()
    checkpoint = tried(lambda: find_checkpoint(settings.model, settings.revision, endpoint=endpoint))
    if checkpoint is None and settings.model in (KEYE_30B, HUB_30B):
        checkpoint = Checkpoint(KEYE_30B, None, describe(KEYE_30B))  # its sizes are known by heart
    device = _device(settings, gpus, checkpoint)
    remarks = [checkpoint.remark] if checkpoint is not None and checkpoint.remark else []
    installed = tried(lambda: read_installed(settings.python, environment))
    if installed is not None:
        remarks += tried(lambda: check_versions(installed, device)) or ()
    room = None
    if checkpoint is None:
        tried(lambda: check_gpus(settings, gpus) if device == "cuda" else check_cpu(settings))
    else:
        known = checkpoint
        tried(lambda: check_disk(known))
        room = tried(
            lambda: (
                room_on_gpus(known.description, settings, gpus)
                if device == "cuda"
                else room_on_cpu(known.description, settings, available_bytes())
            )
        )
    if not is_loopback(settings.host):
        remarks.append(f"{settings.host} is reached by other machines: whoever has the key may ask, unencrypted")
    state = state_folder(environment)
    config_file = state / f"serve-{settings.port}.yaml"
    command = None
    if room is not None and checkpoint is not None:
        command = build_command(
            settings,
            device=device,
            folder=str(checkpoint.folder or NO_FOLDER),
            name=checkpoint.name,
            context_tokens=room.context_tokens,
            cache_tokens=room.cache_tokens if device == "cpu" else None,
            memory_fraction=_fraction(room, installed),
            picture_cache_mib=room.need.pictures // MIB,
            key_file=config_file,
            outer=environment,
        )
    return Plan(settings, device, tuple(gpus), checkpoint, installed, room, command, config_file,
                state / f"serve-{settings.port}.log", url(settings.host, settings.port), tuple(remarks),
                tuple(problems))  # fmt: skip


def _check_options(settings: ServeSettings) -> None:
    if not LEAST_SHARE <= settings.memory_share <= MOST_SHARE:
        raise ConfigError(f"--memory-share {settings.memory_share} must lie in {LEAST_SHARE} to {MOST_SHARE}")
    if settings.media_store is not None and settings.media_store.expanduser().is_file():
        raise ConfigError(f"--media-store {settings.media_store} is a file: name a folder, which is made if need be")
    if settings.media_store is not None and not is_loopback(settings.host):
        raise ConfigError("--media-store is for clients on this machine: leave it out, or --host at 127.0.0.1")


def _device(settings: ServeSettings, gpus: tuple[Gpu, ...], checkpoint: Checkpoint | None) -> str:
    """As asked; else a GPU where there is one, and a CPU for what is small enough to be the embedded model."""
    if settings.device != "auto":
        return settings.device
    return "cuda" if gpus or checkpoint is None or checkpoint.description.parameters > 10**9 else "cpu"


def _fraction(room: Room, installed: Installed | None) -> float:
    """SGLang's share of the memory that is free at its start. Older releases do not count the picture cache: we do."""
    counted = installed is None or installed.sglang is None or numbers(installed.sglang) >= RESERVES_VISION_CACHE
    return room.share if counted else room.share - room.need.pictures / room.free_bytes
