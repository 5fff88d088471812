"""Ends what bubblewrap leaves when its caller is killed in the middle of a start.

Bubblewrap ties its processes to their parents' lives, but not from the very first: one that waits for a parent which
was killed just then waits for ever. Each start therefore carries its owner's name, as that of a memory file which it is
given and code never sees; a later host process ends those whose owner is dead.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
from pathlib import Path
from typing import Final

from keyeloop.sandbox.own_folder import started
from keyeloop.sandbox.process import Descendant

_NAME: Final = re.compile(r"/memfd:keyeloop-(\d+)-(\d+)-(\w+) \(deleted\)")


def owner_name(pid: int | None = None) -> str:
    """What a file of this process, or of ``pid``, is called: the process namespace, the number and its start."""
    number = os.getpid() if pid is None else pid
    return f"keyeloop-{_namespace()}-{number}-{started(number)}"


@functools.cache
def end_orphans_once(_: int) -> None:
    """:func:`end_orphans`, for the first start of a process (its number): later ones would find little more."""
    end_orphans()


def end_orphans() -> list[int]:
    """Kill every bubblewrap of a dead process of this user and process namespace; their numbers."""
    ended = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            if (folder / "comm").read_text() != "bwrap\n" or not _orphaned(folder):
                continue
            process = Descendant(int(folder.name))
            try:
                if _orphaned(folder):  # still the same one, now that it is held
                    process.signal(signal.SIGKILL)
                    ended.append(process.pid)
            finally:
                process.forget()
    return ended


def _orphaned(folder: Path) -> bool:
    for link in (folder / "fd").iterdir():
        with contextlib.suppress(OSError):
            found = _NAME.fullmatch(str(link.readlink()))
            if found and int(found[1]) == _namespace():
                return started(int(found[2])) != found[3]
    return False


def _namespace() -> int:
    return Path("/proc/self/ns/pid").stat().st_ino
