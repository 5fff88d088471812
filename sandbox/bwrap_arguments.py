"""The command line of bubblewrap for a sandbox: which namespaces, what is visible, what can be written."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from keyeloop.sandbox.bwrap_plan import SETPRIV, BwrapPlan
from keyeloop.sandbox.interpreter import HOME
from keyeloop.sandbox.running import BOOT
from keyeloop.sandbox.spec import INPUTS, OUTPUTS, WORK, SandboxSpec

UID_INSIDE: Final = 1000
"""What code of a user namespace takes itself for."""
_LINKED: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_SETTINGS: Final = ("ld.so.cache", "localtime", "alternatives", "fonts", "mime.types")
"""Of ``/etc``: what programs need, and nothing that tells about the host's users or services."""


def bwrap_options(plan: BwrapPlan, spec: SandboxSpec) -> list[str]:
    """All options that describe the sandbox; descriptors are added by the engine.

    Memory-backed folders have sizes; everything else is read-only, ``/dev`` and the root included. Bind mounts come
    before the root is closed, and folders above them are made first so that the sandbox's uid can enter them.
    """
    limits = spec.limits
    options = ["--unshare-net", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    options += ["--die-with-parent", "--new-session", "--hostname", "sandbox", "--cap-drop", "ALL"]
    if plan.way == "userns":
        options += ["--unshare-user", "--uid", str(UID_INSIDE), "--gid", str(UID_INSIDE)]
    else:
        for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
            options += ["--cap-add", capability]
    options += ["--ro-bind", "/usr", "/usr", *_system()]
    options += ["--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys", "--dev", "/dev"]
    options += [*_memory(PurePosixPath("/dev/shm"), limits.tmp_bytes, "1777"), "--remount-ro", "/dev"]
    made: set[PurePosixPath] = set()
    options += _folder(INPUTS, made)
    for source, target in (*plan.python.binds, *((mount.source, mount.inside) for mount in spec.mounts)):
        options += [*_folder(target.parent, made), "--ro-bind", str(source), str(target)]
    options += _memory(WORK, limits.work_bytes, "0777") + _memory(OUTPUTS, limits.artifacts_total_bytes, "0777")
    options += _memory(PurePosixPath("/tmp"), limits.tmp_bytes, "1777")
    options += ["--remount-ro", "/", "--chdir", str(WORK)]
    for name, value in _environment(plan, spec).items():
        options += ["--setenv", name, value]
    return options


def bwrap_command(plan: BwrapPlan, uid: int) -> list[str]:
    """The program that bubblewrap starts: Python, after dropping root where bubblewrap ran as root."""
    command = [str(plan.python.inside), "-s", "-S", "-B", "-c", BOOT]
    if plan.way == "userns":
        return command
    drop = ["--reuid", str(uid), "--regid", str(uid), "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]
    return [str(SETPRIV), *drop, "--no-new-privs", *command]


def _environment(plan: BwrapPlan, spec: SandboxSpec) -> dict[str, str]:
    threads = str(math.ceil(spec.limits.cpus))
    environment = {
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "LOGNAME": "sandbox",
        "MPLBACKEND": "Agg",
        "PATH": f"{HOME}/bin:/usr/local/bin:/usr/bin:/bin",
        "PYTHONHASHSEED": "0",  # equal code shows sets in equal order, so that a run can be repeated
        "PYTHONSAFEPATH": "1",
        "TMPDIR": "/tmp",
        "USER": "sandbox",
        **dict.fromkeys(("MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads),
    }
    if any(plan.python.prefix.glob("lib/libpython*.so*")) and plan.python.binds:
        environment["LD_LIBRARY_PATH"] = str(HOME / "lib")
    return {**environment, **spec.env}


def _system() -> Iterator[str]:
    for name in _LINKED:
        path = Path("/", name)
        if path.is_symlink():
            yield from ("--symlink", str(path.readlink()), str(path))
        elif path.is_dir():
            yield from ("--ro-bind", str(path), str(path))
    yield from ("--perms", "0755", "--dir", "/etc")
    for name in _SETTINGS:
        yield from ("--ro-bind-try", f"/etc/{name}", f"/etc/{name}")


def _memory(folder: PurePosixPath, size_bytes: int, permissions: str) -> list[str]:
    return ["--perms", permissions, "--size", str(size_bytes), "--tmpfs", str(folder)]


def _folder(folder: PurePosixPath, made: set[PurePosixPath]) -> list[str]:
    options: list[str] = []
    for each in (*reversed(folder.parents), folder):
        if each != PurePosixPath("/") and each not in made:
            made.add(each)
            options += ["--perms", "0755", "--dir", str(each)]
    return options
