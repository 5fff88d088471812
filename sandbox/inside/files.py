"""Files of the sandbox by path, never through a link."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import PurePosixPath
from typing import Any


class Files:
    """Files of the sandbox by path, never through a link."""

    def __init__(self, outputs: str, limits: dict[str, Any]) -> None:
        self._outputs = outputs
        self._limits = limits
        self._seen: dict[str, tuple[int, int, int]] = {}

    def changed(self) -> tuple[list[list[Any]], list[list[str]]]:
        """New or changed files below the output folder, and what is there but refused, with its reason."""
        found: list[list[Any]] = []
        refused: list[list[str]] = []
        if not self._seen and _empty(self._outputs):  # most executions leave none: a walk takes longer than they do
            return found, refused
        looked_at = 0
        for folder, _, names, folder_fd in os.fwalk(self._outputs, follow_symlinks=False):
            for name in sorted(names):
                looked_at += 1
                if looked_at > 1024 or len(refused) >= 32:
                    return found, refused
                path = str(PurePosixPath(folder, name).relative_to(self._outputs))
                try:
                    about = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
                except FileNotFoundError:  # a process that the code left running has removed it
                    continue
                identity = (about.st_ino, about.st_size, about.st_mtime_ns)
                if self._seen.get(path) == identity:
                    continue
                self._seen[path] = identity
                problem = self._problem(about)
                if len(found) >= self._limits["artifact_count"]:
                    problem = "too many files"
                if problem:
                    refused.append([path[:200], problem])
                else:
                    found.append([path, about.st_size])
        return found, refused

    def _problem(self, about: os.stat_result) -> str:
        if stat.S_ISLNK(about.st_mode):
            return "symbolic link"
        if not stat.S_ISREG(about.st_mode):
            return "not a regular file"
        if about.st_nlink != 1:
            return "hard link"
        return "too large" if about.st_size > self._limits["artifact_bytes"] else ""

    def read(self, path: str, offset: int, size: int) -> tuple[bytes, int]:
        """A piece of a regular file, and the file's size."""
        folder, name = self._folder(path, make=False)
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            file = os.open(name, flags, dir_fd=folder)
        finally:
            os.close(folder)
        try:
            about = os.fstat(file)
            if not stat.S_ISREG(about.st_mode) or about.st_nlink != 1:
                raise OSError(errno.EINVAL, "not a regular file of its own")
            return os.pread(file, size, offset), about.st_size
        finally:
            os.close(file)

    def write(self, path: str, data: bytes, append: bool, seal: bool = False) -> None:
        """Write a file, making its folders; ``seal`` takes the right to write away once this is done."""
        folder, name = self._folder(path, make=True)
        try:
            if not append:
                self._unseal(name, folder)
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_APPEND if append else os.O_TRUNC)
            file = os.open(name, flags, 0o644, dir_fd=folder)
        finally:
            os.close(folder)
        with os.fdopen(file, "wb") as stream:
            stream.write(data)
            if seal:
                os.fchmod(file, 0o444)

    def link(self, path: str, target: str) -> None:
        """Another name for what the host has mounted."""
        folder, name = self._folder(path, make=True)
        try:
            os.symlink(target, name, dir_fd=folder)
        finally:
            os.close(folder)

    def _unseal(self, name: str, folder: int) -> None:
        """Make way for a new file of this name where the old one was sealed."""
        with contextlib.suppress(OSError):
            about = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISREG(about.st_mode) and not about.st_mode & stat.S_IWUSR:
                os.unlink(name, dir_fd=folder)

    def _folder(self, path: str, make: bool) -> tuple[int, str]:
        """The folder of an absolute path, opened step by step, and the name in it."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        folder = os.open("/", flags)
        *folders, last = path.split("/")
        for name in folders:
            if not name:
                continue
            try:
                if make:
                    with contextlib.suppress(OSError):
                        os.mkdir(name, 0o755, dir_fd=folder)
                if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))  # gVisor would follow it all the same
                inner = os.open(name, flags, dir_fd=folder)
            finally:
                os.close(folder)
            folder = inner
        return folder, last


def _empty(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return False
