"""Control groups for one sandbox: memory, processes and processor time, version 2 or version 1, where they may be made.

Groups are made below the host process's own, so that its limits go on to hold. Sources: ``Documentation/admin-guide/
cgroup-v2.rst`` and ``cgroup-v1/`` of Linux.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from keyeloop.sandbox.spec import Limits

CONTROLLERS: Final = ("memory", "pids", "cpu")
_PERIOD_US: Final = 100_000
_OOM_KILLS: Final = re.compile(rb"^oom_kill (\d+)", re.MULTILINE)
_NAME: Final = re.compile(r"keyeloop-(\d+)-(\d+)-[0-9a-f]+")


@dataclass(frozen=True)
class CgroupHome:
    """Where groups can be made: a folder for each controller that is usable, one for all in version 2."""

    version: int = 0
    folders: dict[str, Path] = field(default_factory=dict)

    def __contains__(self, controller: str) -> bool:
        return controller in self.folders


def find_cgroup_home(proc: Path = Path("/proc/self")) -> CgroupHome:
    """Look for writable control groups; an empty home where there are none."""
    own = {}
    for line in (proc / "cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        own.update(dict.fromkeys(names.split(","), path))
    first: dict[str, Path] = {}
    second: list[Path] = []
    for line in (proc / "mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        root, mount = left.split()[3:5]
        if kind == "cgroup":
            for controller in set(options.split(",")) & set(CONTROLLERS) & set(own):
                first[controller] = _below(Path(mount), root, own[controller])
        elif kind == "cgroup2" and "" in own:
            start = _below(Path(mount), root, own[""])
            second += [folder for folder in (start, *start.parents) if folder.is_relative_to(mount)]
    for folder in second:
        if enabled := _enabled(folder):
            return CgroupHome(2, dict.fromkeys(enabled, folder))
    usable = {controller: folder for controller, folder in first.items() if os.access(folder, os.W_OK)}
    return CgroupHome(1, usable) if usable else CgroupHome()


class Cgroup:
    """The groups of one sandbox. Making one also removes what sandboxes of dead processes left behind."""

    def __init__(self, home: CgroupHome, limits: Limits) -> None:
        """Raises OSError where a limit cannot be set; nothing is left behind then."""
        self._home = home
        self._events_fd: int | None = None
        name = f"keyeloop-{os.getpid()}-{_start_time(os.getpid())}-{secrets.token_hex(4)}"
        self._folders = {controller: folder / name for controller, folder in home.folders.items()}
        for folder in set(home.folders.values()):
            _sweep(folder)
        try:
            for folder in set(self._folders.values()):
                folder.mkdir()
            self._limit(limits)
        except OSError:
            self.close()
            raise

    def add(self, pids: Iterable[int]) -> None:
        """Move processes in; what they start later is born inside."""
        for pid, folder in itertools.product(pids, set(self._folders.values())):
            (folder / "cgroup.procs").write_text(str(pid))

    def oom_kills(self) -> int:
        """How often the kernel has killed a process of the sandbox for memory."""
        if "memory" not in self._folders:
            return 0
        if self._events_fd is None:  # kept open: it is read twice an execution
            name = "memory.events" if self._home.version == 2 else "memory.oom_control"
            self._events_fd = os.open(self._folders["memory"] / name, os.O_RDONLY | os.O_CLOEXEC)
        found = _OOM_KILLS.search(os.pread(self._events_fd, 4096, 0))
        return int(found[1]) if found else 0

    def close(self) -> None:
        """Remove the groups once their processes are gone; gives up after two seconds."""
        if self._events_fd is not None:
            os.close(self._events_fd)
            self._events_fd = None
        deadline_s = time.monotonic() + 2
        for folder in set(self._folders.values()):
            while not _removed(folder) and time.monotonic() < deadline_s:
                time.sleep(0.01)

    def _limit(self, limits: Limits) -> None:
        memory, swap = ("memory.max", "memory.swap.max")
        if self._home.version == 1:
            memory, swap = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
        quota_us = int(limits.cpus * _PERIOD_US)
        if "memory" in self._folders:
            self._write("memory", memory, limits.memory_bytes)
            if (self._folders["memory"] / swap).exists():
                self._write("memory", swap, limits.memory_bytes if self._home.version == 1 else 0)
        if "pids" in self._folders:
            self._write("pids", "pids.max", limits.pids + 1)
        if "cpu" in self._folders and self._home.version == 2:
            self._write("cpu", "cpu.max", f"{quota_us} {_PERIOD_US}")
        elif "cpu" in self._folders and (self._folders["cpu"] / "cpu.cfs_quota_us").exists():
            self._write("cpu", "cpu.cfs_period_us", _PERIOD_US)
            self._write("cpu", "cpu.cfs_quota_us", quota_us)

    def _write(self, controller: str, name: str, value: object) -> None:
        (self._folders[controller] / name).write_text(str(value))


def _below(mount: Path, root: str, path: str) -> Path:
    """The process's own group as seen under a mount of the tree at ``root``; the mount itself if it lies outside."""
    inside = PurePosixPath(path)
    relative = inside.relative_to(root) if inside.is_relative_to(root) else PurePosixPath()
    folder = mount / relative
    return folder if folder.is_dir() else mount


def _enabled(folder: Path) -> list[str]:
    """Controllers that a new group in ``folder`` would have, if it can be entered; memory and pids at least."""
    control = folder / "cgroup.subtree_control"
    if not (os.access(folder, os.W_OK) and os.access(folder / "cgroup.procs", os.W_OK) and control.exists()):
        return []
    with contextlib.suppress(OSError):
        offered = set((folder / "cgroup.controllers").read_text().split()) & set(CONTROLLERS)
        if offered - set(control.read_text().split()):
            control.write_text(" ".join(f"+{name}" for name in sorted(offered)))
    enabled: list[str] = [name for name in CONTROLLERS if name in control.read_text().split()]
    return enabled if {"memory", "pids"} <= set(enabled) else []


def _sweep(parent: Path) -> None:
    for folder in parent.glob("keyeloop-*-*-*"):
        found = _NAME.fullmatch(folder.name)
        if found and _start_time(int(found[1])) != int(found[2]):
            _removed(folder)


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _start_time(pid: int) -> int:
    """Clock ticks after boot at which a process began; -1 where there is none."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except OSError:
        return -1
