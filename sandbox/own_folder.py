"""Temporary folders that carry their owner's name, so that what a killed process left can be removed."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Final

_NAME: Final = re.compile(r"keyeloop-[a-z]+-(\d+)-(\w+)-.*")


def make_folder(kind: str) -> Path:
    """A new folder of this process, after removing those of dead ones; only this user can enter it."""
    place = Path(tempfile.gettempdir()).resolve()
    for folder in place.glob("keyeloop-*-*-*-*"):
        found = _NAME.fullmatch(folder.name)
        if found and folder.lstat().st_uid == os.geteuid() and started(int(found[1])) != found[2]:
            shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"keyeloop-{kind}-{os.getpid()}-{started(os.getpid())}-", dir=place))


def started(pid: int) -> str:
    """Clock ticks after boot at which a process began; where ``/proc`` cannot tell, whether it lives."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        if Path("/proc/self").exists():
            return "dead"
    try:
        os.kill(pid, 0)
    except OSError:
        return "dead"
    return "alive"
