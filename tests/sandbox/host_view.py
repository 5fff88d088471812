"""What the host sees of a sandbox."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self


def processes_of(uid: int) -> list[str]:
    """Command lines of this host's live processes with a uid."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if folder.stat().st_uid == uid and (folder / "stat").read_bytes().rpartition(b") ")[2][:1] != b"Z":
                found.append((folder / "cmdline").read_bytes().decode())
        except OSError:
            continue
    return found


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    deadline_s = time.monotonic() + seconds
    while time.monotonic() < deadline_s:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


SETTINGS = ("core_pattern", "hostname", "modprobe", "randomize_va_space", "panic", "sysrq", "pid_max")
FOLDERS = ("/", "/dev", "/etc", "/opt", "/usr", "/usr/bin", "/usr/lib", "/boot", "/root")
NOISE_BYTES = 1 << 30
"""Of disk, and of memory, that other programs of this machine may take meanwhile; an attack tries for more."""


@dataclass(frozen=True)
class HostState:
    """What an attack must not change on this side of the wall."""

    settings: dict[str, bytes]
    entries: dict[str, list[str]]
    files: dict[Path, bytes]
    victim: tuple[bool, int, frozenset[int]]
    """Whether a process of ours runs, its priority and its processors."""
    free_bytes: int
    memory_kib: int

    @classmethod
    def now(cls, victim: subprocess.Popen[bytes], files: Iterable[Path]) -> Self:
        """Look at the host; ``victim`` and ``files`` are what attacks aim at."""
        settings = {name: Path("/proc/sys/kernel", name) for name in SETTINGS}
        space = os.statvfs("/tmp")
        return cls(
            {name: path.read_bytes() for name, path in settings.items() if os.access(path, os.R_OK)},
            {name: sorted(map(str, Path(name).iterdir())) for name in FOLDERS if os.access(name, os.R_OK | os.X_OK)},
            {path: path.read_bytes() for path in files},
            (
                victim.poll() is None,
                os.getpriority(os.PRIO_PROCESS, victim.pid),
                frozenset(os.sched_getaffinity(victim.pid)),
            ),
            space.f_bavail * space.f_frsize,
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        )

    def require_same(self, now: HostState) -> None:
        """Fail, naming what has changed."""
        assert now.settings == self.settings
        assert now.entries == self.entries
        assert now.files == self.files
        assert now.victim == self.victim
        assert self.free_bytes - now.free_bytes < NOISE_BYTES
        assert now.memory_kib - self.memory_kib < NOISE_BYTES >> 13, "this process grew by more than 128 MiB"
