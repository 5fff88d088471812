"""What the host sees of a sandbox."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


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
