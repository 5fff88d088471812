"""Bubblewraps whose host was killed in the middle of a start are ended by a later host; no others are."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from keyeloop.sandbox.bwrap_orphans import end_orphans, owner_name
from tests.sandbox.host_view import wait_for

SLEEP = shutil.which("sleep")


@pytest.fixture
def sleeper(tmp_path: Path) -> Callable[[str, str], subprocess.Popen[bytes]]:
    """A process of a name, with a memory file of a name."""

    def start(program: str, memory: str) -> subprocess.Popen[bytes]:
        assert SLEEP is not None
        copied = tmp_path / program
        if not copied.exists():
            shutil.copy(SLEEP, copied)
        fd = os.memfd_create(memory)
        try:
            return subprocess.Popen([copied, "60"], pass_fds=[fd])
        finally:
            os.close(fd)

    return start


def test_those_of_dead_owners_are_ended(sleeper: Callable[[str, str], subprocess.Popen[bytes]]) -> None:
    gone = subprocess.Popen(["true"])
    dead = owner_name(gone.pid)
    gone.wait()
    namespace, pid, _ = dead.removeprefix("keyeloop-").split("-")
    orphan = sleeper("bwrap", f"keyeloop-{namespace}-{pid}-1")
    others = [
        sleeper("bwrap", owner_name()),
        sleeper("bwrap", f"keyeloop-1-{pid}-1"),  # of another process namespace: its numbers mean others
        sleeper("bwrap", "something"),
        sleeper("another", f"keyeloop-{namespace}-{pid}-1"),
    ]
    try:
        assert wait_for(lambda: Path(f"/proc/{others[-1].pid}/comm").read_text() == "another\n", 2)
        assert orphan.pid in end_orphans()
        assert orphan.wait(2) == -signal.SIGKILL and all(other.poll() is None for other in others)
    finally:
        for process in (orphan, *others):
            process.kill()
            process.wait()


@pytest.mark.sandbox
def test_hosts_killed_while_they_start_one_leave_nothing_to_the_next() -> None:
    program = "from keyeloop.sandbox.bubblewrap import Bubblewrap\nprint('go', flush=True)\nBubblewrap().start()"
    for index in range(8):
        host = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, env=dict(os.environ, PYTHONPATH="src")
        )
        assert host.stdout is not None and host.stdout.readline() == b"go\n"
        time.sleep(0.012 * index)
        owner = f"/memfd:{owner_name(host.pid)} (deleted)"
        host.kill()
        host.communicate()
        assert wait_for(lambda owner=owner: end_orphans() is None or not holders(owner), 2)  # type: ignore[misc]


def holders(name: str) -> list[str]:
    """Processes that hold a file of this name."""
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if str(link.readlink()) == name:
                found.append(str(link))
        except OSError:
            continue
    return found
