"""A shorter way than the attached connection: two named pipes, where containers run on this machine's own kernel.

They lie in a folder that only the container is given, read-only. Its first process opens them, and they are removed
before any code runs: what stays inside is an empty folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path, PurePosixPath
from typing import Final

from keyeloop.sandbox.own_folder import make_folder

INSIDE: Final = PurePosixPath("/dev/keyeloop")
"""Where the container finds them."""
REQUESTS, REPLIES = "requests", "replies"
FOLDER_MODE, PIPE_MODE = 0o711, 0o666
"""For the container's user, who is not this one; nobody else can come near: the folder above is private."""


class NamedPipes:
    """Made before the container. Whoever reads ``requests_fd`` and ``replies_fd`` owns and closes these two."""

    def __init__(self) -> None:
        """Raises OSError where the temporary folder cannot hold them."""
        self._folder = make_folder("docker")  # which nobody else on this machine can enter
        self._keeper_fd: int | None = None
        self.requests_fd = self.replies_fd = -1
        try:
            self.source: Path = self._folder / "pipes"
            self.source.mkdir()
            self.source.chmod(FOLDER_MODE)
            for name in (REQUESTS, REPLIES):
                os.mkfifo(self.source / name)
                (self.source / name).chmod(PIPE_MODE)
            flags = os.O_NONBLOCK | os.O_CLOEXEC
            self._keeper_fd = os.open(self.source / REQUESTS, flags | os.O_RDONLY)  # else the next line would fail
            self.requests_fd = os.open(self.source / REQUESTS, flags | os.O_WRONLY)
            self.replies_fd = os.open(self.source / REPLIES, flags | os.O_RDONLY)
        except OSError:
            self.remove()
            for fd in (self.requests_fd, self.replies_fd):
                if fd >= 0:
                    os.close(fd)
            raise

    def remove(self) -> None:
        """Take them out of the file system; whoever has opened them keeps them. Idempotent."""
        if self._keeper_fd is not None:
            os.close(self._keeper_fd)
            self._keeper_fd = None
        with contextlib.suppress(OSError):
            shutil.rmtree(self._folder)
