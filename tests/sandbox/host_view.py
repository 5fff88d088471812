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

from keyeloop.sandbox.docker.worker import DockerWorker
from keyeloop.sandbox.gvisor.worker import RunscWorker
from keyeloop.sandbox.session import WorkerSandbox


@dataclass(frozen=True)
class Trace:
    """By what this host can tell a sandbox's processes from all others, also after its end; empty where it cannot."""

    uid: int | None = None
    group: str | None = None
    """A line of ``/proc/PID/cgroup``: gVisor's own processes have one uid for all sandboxes."""

    @classmethod
    def of(cls, sandbox: WorkerSandbox) -> Trace:
        """Of the worker that runs now."""
        about, worker = sandbox.isolation, sandbox._running
        if about.boundary != "gvisor":
            return cls(uid=about.uid if about.uid != os.geteuid() else None)
        if isinstance(worker, DockerWorker):
            pid = worker._daemon.api.inspect_container(worker._id)["State"]["Pid"]
        else:
            assert isinstance(worker, RunscWorker) and worker._child is not None
            pid = worker._child.pid
        name = worker._id if isinstance(worker, DockerWorker) else f"/keyeloop-{os.getpid()}-"
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            if name in line:  # that of a process which is gone is the root's, and everybody's
                return cls(group=line)
        raise ProcessLookupError(pid)

    @property
    def tells(self) -> bool:
        return self != Trace()

    def pids(self) -> list[int]:
        """Live processes."""
        return [int(folder.name) for folder in Path("/proc").glob("[0-9]*") if self._is_of(folder)]

    def _is_of(self, folder: Path) -> bool:
        try:
            if (folder / "stat").read_bytes().rpartition(b") ")[2][:1] == b"Z":
                return False
            if self.group is not None:
                return self.group in (folder / "cgroup").read_text().splitlines()
            return f"\nUid:\t{self.uid}\t" in (folder / "status").read_text()
        except OSError:
            return False


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
