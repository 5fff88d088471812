"""Runs a server in a process group of its own and ends all of it when its launcher says so, or is gone.

SGLang names files in shared memory and leaves them where it is killed. Every such file that one of the server's
processes has mapped is noted while they run, and what is left of them is removed when they are gone.

Run as a script by :mod:`process`, and by nothing else: ``python -I guard.py ALIVE_FD GRACE_S COMMAND...``. It needs
the standard library alone, has one thread, and outlives a launcher that was killed by the time it takes to clean up.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
"""From Linux' ``prctl.h``."""
STOP, KILL = b"s", b"k"
"""On the launcher's pipe: with grace, and without. The pipe's end means STOP too."""
TICK_S = 0.05
SHARED = "/dev/shm/"
LOOKS_S = (1.0,) * 120 + (5.0,)
"""Pauses between looks at what the server has mapped, the last for ever: files are made while it starts, few later."""
MADE_BY_SERVERS = ("sglang_", "sgl_shm_", "multi_tokenizer_args_", "sem.mp-", "psm_", "nccl-", "cuda.shm.")
"""How names begin that SGLang, Python's multiprocessing, NCCL and CUDA give to what they share; others' stay."""


def main(arguments: list[str]) -> int:
    """Run the command until it ends or the launcher's pipe does; its exit code, as a shell counts it."""
    alive_fd, grace_s, command = int(arguments[0]), float(arguments[1]), arguments[2:]
    os.set_inheritable(alive_fd, False)
    woken_fd = _wake_on_signals()
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    shared = SharedFiles()
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        process_group=0,
        preexec_fn=lambda: _prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
    )
    told = _wait(server, alive_fd, woken_fd, shared)
    shared.look(server.pid)
    if told is not None:
        _signal_group(server.pid, signal.SIGTERM)
        deadline = time.monotonic() + (0.0 if told == KILL else grace_s)
        while time.monotonic() < deadline and _group_lives(server):
            if select.select([alive_fd], [], [], TICK_S)[0]:
                if os.read(alive_fd, 1) == KILL:
                    break
                time.sleep(TICK_S)  # the pipe has ended: it stays readable
    code = _end(server)
    shared.remove()
    return 128 - code if code < 0 else code


class SharedFiles:
    """Files in shared memory that a server made: mapped by its processes, and not there before it."""

    def __init__(self) -> None:
        """Before the server starts."""
        self._before = set(_shared())
        self._made: set[tuple[str, int]] = set()
        """Paths and inodes."""

    def look(self, group: int) -> None:
        """Note what the processes of ``group``, and those that came from it, have mapped now."""
        for pid in _processes(group):
            maps = Path(f"/proc/{pid}/maps")
            with contextlib.suppress(OSError), maps.open(encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    if SHARED not in line:
                        continue
                    *_, inode, path = line.rstrip("\n").split(maxsplit=5)
                    file = path, int(inode)
                    if Path(path).name.startswith(MADE_BY_SERVERS) and file not in self._before:
                        self._made.add(file)

    def remove(self) -> None:
        """Unlink what is still there of them, once their processes are gone."""
        for path, inode in self._made:
            with contextlib.suppress(OSError):
                if Path(path).lstat().st_ino == inode:
                    Path(path).unlink()


def _shared() -> list[tuple[str, int]]:
    try:
        with os.scandir(SHARED) as found:
            return [(file.path, file.inode()) for file in found]
    except OSError:  # a system without it
        return []


def _processes(group: int) -> list[int]:
    """Of ``group``, and children of this process and of theirs, whatever group they are in."""
    parents: dict[int, int] = {}
    found = {os.getpid()}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            _, parent, of_group, *_ = stat.read_text(errors="replace").rpartition(")")[2].split()
            pid = int(stat.parent.name)
            parents[pid] = int(parent)
            if int(of_group) == group:
                found.add(pid)
    while more := {pid for pid, parent in parents.items() if parent in found and pid not in found}:
        found |= more
    return sorted(found - {os.getpid()})


def _wait(server: subprocess.Popen[bytes], alive_fd: int, woken_fd: int, shared: SharedFiles) -> bytes | None:
    """None when the server ended by itself, else what the launcher said last; nothing when it is gone."""
    looks = 0
    while server.poll() is None:
        pause_s = LOOKS_S[min(looks, len(LOOKS_S) - 1)]
        ready, _, _ = select.select([alive_fd, woken_fd], [], [], pause_s)
        if not ready:
            looks += 1
            shared.look(server.pid)
        if alive_fd in ready:
            return os.read(alive_fd, 1)
        if woken_fd in ready and signal.SIGTERM in os.read(woken_fd, 64):
            return STOP
    return None


def _end(server: subprocess.Popen[bytes]) -> int:
    """Kill what is left of the group, and what left the group and came back to this process; the server's code."""
    _signal_group(server.pid, signal.SIGKILL)
    code = server.wait()
    for _ in range(200):
        while _collected():
            pass
        left = _children()
        if not left:
            break
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(TICK_S)
    return code


def _group_lives(server: subprocess.Popen[bytes]) -> bool:
    server.poll()
    while server.returncode is not None and _collected():
        pass
    try:
        os.killpg(server.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS, where only zombies are left
        return False
    return True


def _collected() -> bool:
    """Whether an orphan that ended was taken off the table just now. Only once the server itself has been."""
    try:
        return os.waitpid(-1, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return False


def _children() -> list[int]:
    try:
        return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    except OSError:
        return []


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _wake_on_signals() -> int:
    """A descriptor that gets a byte for every SIGCHLD and SIGTERM. Ctrl-C is the launcher's to hear."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return reading


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
