"""One child process of the host, its death watched and its descendants found."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class Child:
    """A process started from a thread of its own, with an empty environment.

    The thread lives as long as the process: Linux sends a parent-death signal when the *thread* that started a process
    ends, so a pool's thread must not be the one. It also ends the process once ``expires_at_s`` (monotonic) has passed.
    """

    def __init__(self, command: Sequence[str], options: Mapping[str, Any]) -> None:
        """``options`` go to :class:`subprocess.Popen`. Raises OSError where the program cannot be started."""
        self.expires_at_s = float("inf")
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(
            target=self._live, args=(list(command), dict(options)), name="sandbox-parent", daemon=True
        )
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise self._failure

    @property
    def exited_fd(self) -> int:
        """Becomes readable when the process has ended. Belongs to this object."""
        return self._pidfd

    def exited(self) -> bool:
        """Whether the process has ended."""
        return bool(_readable(self._pidfd, 0))

    def stop(self) -> None:
        """Send SIGSTOP, so that it starts nothing more; no harm once it has ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGSTOP)

    def kill(self) -> None:
        """Send SIGKILL; no harm once it has ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def wait(self, seconds: float) -> bool:
        """Wait for the end and the collection of the process; whether it came in time."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def forget(self) -> None:
        """Close what is held of it; call after it has ended."""
        os.close(self._pidfd)

    def _live(self, command: list[str], options: dict[str, Any]) -> None:
        try:
            process = subprocess.Popen(command, env={}, cwd="/", start_new_session=True, **options)
            try:
                self.pid = process.pid
                self._pidfd = os.pidfd_open(process.pid)
            except OSError:
                process.kill()
                process.wait()
                raise
        except BaseException as error:
            self._failure = error
            return
        finally:
            self._started.set()
        while not _readable(self._pidfd, min(self.expires_at_s - time.monotonic(), 1.0)):
            if time.monotonic() >= self.expires_at_s:
                process.kill()
        process.wait()


class Descendant:
    """A process further down, held by a descriptor so that its number cannot come to mean another."""

    def __init__(self, pid: int) -> None:
        """Raises ProcessLookupError where there is none."""
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; no harm once it has ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def status(self) -> dict[str, str]:
        """``/proc/PID/status`` as the host's kernel tells it."""
        lines = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
        return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}

    def forget(self) -> None:
        """Close the descriptor."""
        os.close(self._pidfd)


def child_of(parent: int) -> Descendant | None:
    """The oldest live child of ``parent``, or None."""
    try:
        found = [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    except OSError:
        found = [int(folder.name) for folder in Path("/proc").iterdir() if _parent_of(folder) == parent]
    with contextlib.suppress(ProcessLookupError):
        return Descendant(min(found)) if found else None
    return None


def _parent_of(folder: Path) -> int:
    """The parent of the process of a folder of ``/proc``; -1 for other folders."""
    try:
        return int((folder / "stat").read_bytes().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return -1


def _readable(fd: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(max(0.0, seconds) * 1000))
