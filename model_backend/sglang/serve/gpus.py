"""The GPUs of this machine, as the driver tells them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from keyeloop.runtime.errors import ConfigError

MIB = 1 << 20
LEAST_CAPABILITY = (8, 0)
"""Ampere: bfloat16 in hardware."""
_FIELDS = ("index", "uuid", "name", "memory.total", "memory.free", "compute_cap")


@dataclass(frozen=True)
class Gpu:
    """One GPU; sizes in bytes."""

    index: int
    uuid: str
    name: str
    total_bytes: int
    free_bytes: int
    capability: tuple[int, int]


def read_gpus(environment: Mapping[str, str]) -> tuple[Gpu, ...]:
    """The GPUs that a server started with ``environment`` would see, in its order; none where there is no driver.

    ``CUDA_VISIBLE_DEVICES`` is heeded, by number and by the beginning of a UUID. Raises ConfigError where
    ``nvidia-smi`` fails.
    """
    tool = shutil.which("nvidia-smi", path=environment.get("PATH"))
    if tool is None:
        return ()
    asked = [tool, f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        run = subprocess.run(asked, env=dict(environment), capture_output=True, text=True, timeout=60, check=True)
        gpus = tuple(_gpu(line) for line in run.stdout.splitlines() if line.strip())
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise ConfigError(f"nvidia-smi does not tell what GPUs there are ({error}): mend the NVIDIA driver") from None
    return _visible(gpus, environment.get("CUDA_VISIBLE_DEVICES"))


def _gpu(line: str) -> Gpu:
    index, uuid, name, total, free, capability = (field.strip() for field in line.split(","))
    major, _, minor = capability.partition(".")
    return Gpu(int(index), uuid, name, int(total) * MIB, int(free) * MIB, (int(major), int(minor)))


def _visible(gpus: tuple[Gpu, ...], wanted: str | None) -> tuple[Gpu, ...]:
    """CUDA's rule: the named ones in their order, up to the first that is not there."""
    if wanted is None:
        return gpus
    seen: list[Gpu] = []
    for name in (part.strip() for part in wanted.split(",")):
        found = [gpu for gpu in gpus if name and (str(gpu.index) == name or gpu.uuid.startswith(name))]
        if len(found) != 1:
            break
        seen += found
    return tuple(seen)
