"""The Docker daemon that answers here, and what it says it can enforce."""

from __future__ import annotations

import functools
import importlib
import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from keyeloop.runtime.errors import SandboxUnavailable

IMAGE: Final = "keyeloop-sandbox:latest"
"""What ``keyeloop sandbox build-image`` makes, and what runs unless the spec names another."""
GVISOR: Final = "runsc"
SYSTEM_SOCKET: Final = Path("/var/run/docker.sock")
PROBE_S: Final = 5.0
CALL_S: Final = 30.0


@dataclass(frozen=True)
class Daemon:
    """A daemon that answered, with a client for it. Facts are those of ``GET /info``."""

    api: Any = field(compare=False, repr=False)
    """A ``docker.APIClient``."""
    address: str
    version: str
    machine: str
    """Processor architecture, as ``platform.machine`` names it."""
    kernel: str
    cpus: int
    runtimes: tuple[str, ...]
    remaps_users: bool
    """Rootless, or with user namespaces: the uid inside is not the one that the kernel sees."""

    @property
    def local(self) -> bool:
        """Whether it sees this machine's files."""
        return self.address.startswith(("unix://", "http+docker://", "npipe://"))

    def image_id(self, name: str) -> str:
        """The id of an image that is there. Raises SandboxUnavailable where it is not; nothing is downloaded."""
        from docker.errors import APIError, ImageNotFound

        try:
            return str(self.api.inspect_image(name)["Id"])
        except ImageNotFound:
            cure = "run `keyeloop sandbox build-image`" if name == IMAGE else f"load it: docker pull {name}"
            raise SandboxUnavailable(f"the Docker daemon has no image {name}; {cure}") from None
        except APIError as error:
            raise SandboxUnavailable(f"the Docker daemon refuses image {name}: {line_of(error)}; check it") from error

    def default_runtime(self) -> str | None:
        """gVisor where it is registered, else None for the daemon's own choice."""
        return GVISOR if GVISOR in self.runtimes else None


def connect() -> Daemon:
    """The daemon that ``DOCKER_HOST`` names, else the system's, else this user's rootless one.

    Raises SandboxUnavailable whose text is the reason, a semicolon, and what to do.
    """
    return _connect(find_address(), os.getpid())


def find_address() -> str:
    """Where a daemon should be. Raises SandboxUnavailable where there is no sign of one."""
    if named := os.environ.get("DOCKER_HOST"):
        return named
    own = Path(os.environ.get("XDG_RUNTIME_DIR", "/nonexistent")) / "docker.sock"
    for found in (SYSTEM_SOCKET, own):
        if found.exists():
            return f"unix://{found}"
    raise SandboxUnavailable(
        f"no Docker daemon: {SYSTEM_SOCKET} is not there; optional: install Docker and start it, or name one with "
        "DOCKER_HOST, then `keyeloop sandbox build-image`"
    )


@functools.cache
def _connect(address: str, _: int) -> Daemon:
    """Once per process: clients do not survive a fork."""
    try:
        _knock(address)
        docker = importlib.import_module("docker")
        named = {**os.environ, "DOCKER_HOST": address}
        api = docker.APIClient(version="auto", timeout=PROBE_S, **docker.utils.kwargs_from_env(environment=named))
        info = api.info()
        api.timeout = CALL_S
    except Exception as error:
        remedy = "start it, or let this user reach it (group docker, or a rootless daemon)"
        raise SandboxUnavailable(f"no Docker daemon answers at {address}: {line_of(error)}; {remedy}") from error
    options = " ".join(info.get("SecurityOptions") or ())
    return Daemon(
        api,
        address,
        str(info.get("ServerVersion", "")),
        {"amd64": "x86_64", "arm64": "aarch64"}.get(info["Architecture"], info["Architecture"]),
        str(info.get("KernelVersion", "")),
        int(info.get("NCPU") or 1),
        tuple(sorted(info.get("Runtimes") or ())),
        "name=userns" in options or "name=rootless" in options,
    )


def _knock(address: str) -> None:
    """Raises OSError where nobody listens at a Unix socket: the client would leave its own open."""
    if address.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as knocking:
            knocking.settimeout(PROBE_S)
            knocking.connect(address.removeprefix("unix://"))


def line_of(error: Exception) -> str:
    """The first line of what went wrong, without semicolons: they separate reasons from remedies."""
    text = str(getattr(error, "explanation", None) or error).strip() or type(error).__name__
    return text.splitlines()[0].replace(";", ",")[:200]
