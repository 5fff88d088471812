"""What the host's kernel tells of a container's first process, where the daemon runs on this machine."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Final

_OOM_KILLS: Final = re.compile(rb"^oom_kill (\d+)", re.MULTILINE)
_COUNTERS: Final = {"cgroup": "memory.oom_control", "cgroup2": "memory.events"}


class HostView:
    """One process of the host, known to be the container's; and the memory counter of its control group."""

    def __init__(self, status: dict[str, str], counter: Path | None) -> None:
        self.status = status
        self._counter_fd: int | None = None
        if counter is not None:
            try:
                self._counter_fd = os.open(counter, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                self._counter_fd = None

    @classmethod
    def of(cls, pid: int, uid: int) -> HostView | None:
        """The view of process ``pid``, or None where that number means something else, or nothing, here."""
        folder = Path("/proc") / str(pid)
        try:
            status = parse_status((folder / "status").read_text(encoding="ascii", errors="replace"))
            if status["NSpid"].split()[-1] != "1" or (status["Uid"].split()[0] != str(uid) and not _owned(pid, uid)):
                return None
            return cls(status, _memory_counter(folder))
        except (OSError, KeyError, ValueError):
            return None

    def oom_kills(self) -> int:
        """The counter; 0 where there is none, or none any more."""
        if self._counter_fd is None:
            return 0
        try:
            found = _OOM_KILLS.search(os.pread(self._counter_fd, 4096, 0))
        except OSError:
            return 0
        return int(found[1]) if found else 0

    def close(self) -> None:
        """Close what is held."""
        if self._counter_fd is not None:
            os.close(self._counter_fd)
            self._counter_fd = None


def parse_status(text: str) -> dict[str, str]:
    """``/proc/PID/status`` by field."""
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def _owned(pid: int, uid: int) -> bool:
    """Whether the process is ``uid`` in a user namespace of its own."""
    if Path(f"/proc/{pid}/ns/user").readlink() == Path("/proc/self/ns/user").readlink():
        return False
    outside = int(parse_status(Path(f"/proc/{pid}/status").read_text())["Uid"].split()[0])
    for line in Path(f"/proc/{pid}/uid_map").read_text().splitlines():
        inside, host, count = (int(number) for number in line.split())
        if inside <= uid < inside + count:
            return host + uid - inside == outside
    return False


def _memory_counter(folder: Path) -> Path | None:
    """The file that counts kills for memory in the group of a process."""
    groups = {}
    for line in (folder / "cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        groups.update(dict.fromkeys(names.split(","), path))
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        if kind not in _COUNTERS or (kind == "cgroup" and "memory" not in options.split(",")):
            continue
        root, mount = left.split()[3:5]
        group = PurePosixPath(groups.get("memory" if kind == "cgroup" else "", "/"))
        if group.is_relative_to(root):
            counter = Path(mount) / group.relative_to(root) / _COUNTERS[kind]
            if counter.exists():
                return counter
    return None
