"""The folder that ``runsc`` runs: a configuration of the OCI runtime specification, and an empty root.

Everything that code sees is mounted from this machine, read-only, or lies in memory with a size.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any, Final

from keyeloop.sandbox.docker.first import first_program
from keyeloop.sandbox.environment import plain_environment
from keyeloop.sandbox.interpreter import HOME, Interpreter
from keyeloop.sandbox.seccomp import seccomp_program
from keyeloop.sandbox.spec import INPUTS, OUTPUTS, WORK, SandboxSpec

_LINKED: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_NAMESPACES: Final = ("pid", "network", "ipc", "uts", "mount")


def write_bundle(folder: Path, python: Interpreter, uid: int, spec: SandboxSpec) -> None:
    """Fill ``folder``; its name is not told to code."""
    root = folder / "rootfs"
    root.mkdir()
    for name in _LINKED:
        path = Path("/", name)
        if path.is_symlink():
            (root / name).symlink_to(path.readlink())
    for inside in (INPUTS, WORK, OUTPUTS, PurePosixPath("/tmp"), PurePosixPath("/etc"), PurePosixPath("/usr")):
        (root / inside.relative_to("/")).mkdir()
    limits = spec.limits
    program = first_program(seccomp_program(), limits.stdout_bytes)
    config = {
        "ociVersion": "1.0.2",
        "hostname": "sandbox",
        "root": {"path": str(root), "readonly": True},
        "process": {
            "terminal": False,
            "user": {"uid": uid, "gid": uid},
            "args": [str(python.inside), "-s", "-S", "-B", "-c", program],
            "env": [f"{name}={value}" for name, value in _environment(python, spec).items()],
            "cwd": str(WORK),
            "capabilities": {},
            "noNewPrivileges": True,
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": limits.nofile, "hard": limits.nofile}],
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            _memory("/sys", 1 << 12, "555", "ro"),
            _memory("/dev", 1 << 16, "755"),
            _memory("/dev/shm", limits.tmp_bytes, "1777"),
            _memory(str(WORK), limits.work_bytes, "777"),
            _memory(str(OUTPUTS), limits.artifacts_total_bytes, "777"),
            _memory("/tmp", limits.tmp_bytes, "1777"),
            *(_bind(Path("/", name), f"/{name}") for name in _LINKED if _is_folder(name)),
            _bind(Path("/usr"), "/usr"),
            *(_bind(source, str(target)) for source, target in python.binds),
            *(_bind(mount.source, str(mount.inside)) for mount in spec.mounts),
        ],
        "linux": {"namespaces": [{"type": name} for name in _NAMESPACES]},
    }
    (folder / "config.json").write_text(json.dumps(config))


def _is_folder(name: str) -> bool:
    path = Path("/", name)
    return path.is_dir() and not path.is_symlink()


def _bind(source: Path, target: str) -> dict[str, Any]:
    return {"destination": target, "type": "bind", "source": str(source), "options": ["rbind", "ro", "nosuid", "nodev"]}


def _memory(target: str, size_bytes: int, mode: str, *more: str) -> dict[str, Any]:
    options = ["nosuid", "nodev", f"size={size_bytes}", f"mode={mode}", *more]
    return {"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options}


def _environment(python: Interpreter, spec: SandboxSpec) -> dict[str, str]:
    variables = {"PATH": f"{HOME}/bin:/usr/local/bin:/usr/bin:/bin"}
    if any(python.prefix.glob("lib/libpython*.so*")) and python.binds:
        variables["LD_LIBRARY_PATH"] = str(HOME / "lib")
    return {**variables, **plain_environment(spec)}
