"""Who a container belongs to, and the removal of those whose owner is dead.

A container ends by itself when its owner's connection breaks; the sweep is for what never got that far.
"""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path
from typing import Final

from keyeloop.sandbox.docker.daemon import Daemon
from keyeloop.sandbox.own_folder import started

OWNER: Final = "keyeloop.owner"
"""Label: number and start of the process that made the container."""
MACHINE: Final = "keyeloop.machine"
"""Label: the boot and process namespace in which that number means anything."""


def labels() -> dict[str, str]:
    """What marks a container of this process."""
    return {OWNER: f"{os.getpid()}:{started(os.getpid())}", MACHINE: _machine()}


def sweep(daemon: Daemon) -> list[str]:
    """Remove every container of a dead process of this machine; the ids of those removed."""
    from docker.errors import APIError

    removed = []
    for container in daemon.api.containers(all=True, filters={"label": f"{MACHINE}={_machine()}"}):
        pid, _, born = container["Labels"].get(OWNER, "").partition(":")
        if pid.isdigit() and started(int(pid)) != born:
            with contextlib.suppress(APIError):  # another process's sweep was faster, or it is about to go by itself
                daemon.api.remove_container(container["Id"], force=True, v=True)
                removed.append(str(container["Id"]))
    return removed


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return platform.node()
