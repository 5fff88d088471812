"""What is asked of the daemon for one sandbox: everything denied, little granted, all of it bounded."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path
from typing import Any, Final

from keyeloop.runtime.errors import SandboxError, SandboxUnavailable
from keyeloop.sandbox.docker.daemon import GVISOR, Daemon
from keyeloop.sandbox.docker.first import first_program
from keyeloop.sandbox.docker.owner import labels
from keyeloop.sandbox.docker.pipes import INSIDE
from keyeloop.sandbox.environment import plain_environment
from keyeloop.sandbox.seccomp import seccomp_program
from keyeloop.sandbox.spec import OUTPUTS, WORK, Limits, SandboxSpec

FIRST_UID, UIDS = 200_000, 1 << 16
"""Each container gets a uid of its own from this range."""
FIRST_REMAPPED_UID, REMAPPED_UIDS = 10_000, 50_000
"""A daemon that remaps users has fewer."""
OVERHEAD_PIDS: Final = 1
"""The first process, which is not the code's."""
GVISOR_PIDS: Final = 128
"""Threads of gVisor's own kernel, which the daemon counts as the container's."""


def fresh_uid(daemon: Daemon) -> int:
    """A uid for one container; never 0, and nobody's on an ordinary host."""
    first, count = (FIRST_REMAPPED_UID, REMAPPED_UIDS) if daemon.remaps_users else (FIRST_UID, UIDS)
    return first + secrets.randbelow(count)


def pids_limit(limits: Limits, runtime: str | None) -> int:
    """What the daemon is asked for; the first process, and a kernel of the container's own, come on top."""
    return limits.pids + OVERHEAD_PIDS + (GVISOR_PIDS if runtime == GVISOR else 0)


def create(
    daemon: Daemon, image: str, runtime: str | None, uid: int, spec: SandboxSpec, pipes: Path | None = None
) -> str:
    """Make a container that is not started yet; its id. Raises SandboxUnavailable where inputs cannot be mounted.

    ``pipes`` is the folder of named pipes through which its worker talks.
    """
    if spec.mounts and not daemon.local:
        raise SandboxUnavailable(
            f"the Docker daemon at {daemon.address} does not see this machine's files; "
            "send them with put(), or use a daemon behind a local socket"
        )
    limits = spec.limits
    program = first_program(seccomp_program(daemon.machine), limits.stdout_bytes, str(INSIDE) if pipes else "")
    made = daemon.api.create_container(
        image,
        entrypoint=["python3", "-s", "-B", "-c", program],
        command=[],
        user=f"{uid}:{uid}",
        hostname="sandbox",
        working_dir=str(WORK),
        environment=plain_environment(spec),
        use_config_proxy=False,  # the client's proxies may hold passwords
        labels=labels(),
        stdin_open=True,
        tty=False,
        network_disabled=True,
        host_config=daemon.api.create_host_config(**_host_config(daemon, runtime, uid, spec, pipes)),
    )
    return str(made["Id"])


def attach(daemon: Daemon, container: str) -> socket.socket:
    """The raw connection to the container's standard streams. Raises SandboxError for a kind that has none."""
    wanted = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
    attached = daemon.api.attach_socket(container, params=wanted)
    raw = getattr(attached, "_sock", attached)
    if type(raw) is not socket.socket:
        raise SandboxError(
            f"a Docker daemon at {daemon.address} cannot be used: name one behind a Unix socket or plain TCP"
        )
    connection = raw.dup()
    for held in (getattr(attached, "_response", raw), raw):  # the response first: it closes what reads the socket
        held.close()
    return connection


def _host_config(
    daemon: Daemon, runtime: str | None, uid: int, spec: SandboxSpec, pipes: Path | None
) -> dict[str, Any]:
    from docker.types import LogConfig, Mount, Ulimit

    limits = spec.limits
    bound = [(mount.inside, mount.source) for mount in spec.mounts] + ([(INSIDE, pipes)] if pipes else [])
    owned = f"uid={uid},gid={uid},nosuid,nodev"
    config: dict[str, Any] = {
        "auto_remove": True,
        "network_mode": "none",
        "ipc_mode": "private",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "pids_limit": pids_limit(limits, runtime),
        "mem_limit": limits.memory_bytes,
        "memswap_limit": limits.memory_bytes,
        "nano_cpus": int(min(limits.cpus, daemon.cpus) * 1e9),
        "shm_size": limits.tmp_bytes,
        "init": False,
        "log_config": LogConfig(type="none"),
        "dns": ["127.0.0.1"],  # else the host's resolvers and domains are told
        "dns_search": ["."],
        "tmpfs": {
            str(WORK): f"size={limits.work_bytes},mode=0700,{owned}",
            str(OUTPUTS): f"size={limits.artifacts_total_bytes},mode=0700,{owned}",
            "/tmp": f"size={limits.tmp_bytes},mode=0700,{owned}",
            "/sys": "size=4k,mode=0555,ro",
        },
        "ulimits": [
            Ulimit(name="core", soft=0, hard=0),
            Ulimit(name="nofile", soft=limits.nofile, hard=limits.nofile),
        ],
        "mounts": [
            Mount(str(inside), str(source), type="bind", read_only=True, propagation="rprivate")
            for inside, source in bound
        ],
    }
    return config | ({"runtime": runtime} if runtime else {})
