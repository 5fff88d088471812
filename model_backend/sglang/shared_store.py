"""Whether a folder that a server names is the folder of that name here: the same disk of the same running machine.

An address on loopback may be a tunnel to another machine, or lead into a container. A picture put into the wrong folder
would be refused by the server, in the middle of a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

STORE, IDENTITY = "media_store", "media_store_identity"
"""Under these names the plugin tells of its store in its status."""
BOOT = Path("/proc/sys/kernel/random/boot_id")


def identity_of(folder: Path) -> str:
    """What tells a folder from every other: device, inode, and the boot of the kernel that numbered them."""
    found = folder.stat()
    try:
        boot = BOOT.read_text(encoding="ascii").strip()
    except OSError:
        boot = ""
    return f"{found.st_dev}:{found.st_ino}:{boot}"


def shared_store(status: Mapping[str, Any]) -> Path | None:
    """The server's store, where it is a folder here too; None where it has none or it is elsewhere."""
    named, told = status.get(STORE), status.get(IDENTITY)
    if not isinstance(named, str) or not named or not isinstance(told, str):
        return None
    folder = Path(named)
    try:
        return folder if folder.is_dir() and identity_of(folder) == told else None
    except OSError:
        return None
