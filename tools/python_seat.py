"""One run's sandbox: opened by its first call, given the run's files, used by one call at a time."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from keyeloop.runtime.content import MediaRef
from keyeloop.runtime.errors import InputError, SandboxUnavailable, ToolError
from keyeloop.runtime.evidence import Source
from keyeloop.runtime.media import MediaStore
from keyeloop.sandbox import ExecResult, Mount, Sandbox

SENT_BYTES: Final = 32 << 20
"""Larger inputs are mounted where a sandbox is started for the run; smaller ones are sent, with every engine."""
SENT_SHARE: Final = 4
"""Files that are sent may take one part in so many of the room of ``/work``."""
MAX_VIEWS: Final = 256
"""The latest pictures, where the model was shown more."""
_SUFFIX: Final = re.compile(r"\.[a-z0-9]{1,5}")


class Seat:
    """Where the calls of one run sit down, one after another. Names of files are the names that the model knows:
    ``video-1.mp4`` for an input, ``f1.jpg`` for a view."""

    def __init__(
        self,
        opener: Callable[[tuple[Mount, ...]], Sandbox],
        inputs: Mapping[str, Source],
        media: MediaStore,
        *,
        mounted: tuple[Mount, ...] = (),
        sent_bytes: int = SENT_BYTES,
    ) -> None:
        """``mounted`` is what every sandbox of ``opener`` has anyway: inputs below need no mount of their own.

        Other inputs of more than ``sent_bytes`` do.
        """
        self._mounted, self._sent_bytes = mounted, sent_bytes
        self._opener, self._inputs, self._media = opener, dict(inputs), media
        self._lock = threading.Lock()
        self._sandbox: Sandbox | None = None
        self._closed = False
        self._room_bytes = 0
        self._tried: set[str] = set()
        self.files: list[str] = []
        """What code finds where it starts, in the order in which it was given."""

    def exec(self, code: str, stop: threading.Event, shown: Mapping[str, MediaRef]) -> ExecResult:
        """Run ``code``, unless ``stop`` was set before its turn came: nobody waits for it any more.

        ``shown`` are the pictures before the model, by handle; those that are new are sent first.
        """
        with self._lock:
            if self._sandbox is None and not self._closed and not stop.is_set():
                self._open()
            if self._sandbox is None or self._closed or stop.is_set():
                raise ToolError("the call was stopped before its code ran")
            for handle, media in list(shown.items())[-MAX_VIEWS:]:
                self._send(self._sandbox, f"{handle}.jpg", self._media.path(media.sha256))
            return self._sandbox.exec(code)

    def interrupt(self) -> None:
        """Stop the code that is running."""
        if self._sandbox is not None:
            self._sandbox.interrupt()

    def close(self) -> None:
        """End the sandbox, also one that is being opened."""
        self._closed = True
        if self._sandbox is not None:
            self._sandbox.close()
        with self._lock:
            if self._sandbox is not None:
                self._sandbox.close()

    def _open(self) -> None:
        mounts = tuple(self._mounts())
        try:
            self._sandbox = self._opener(mounts)
        except SandboxUnavailable:  # what its user cannot read must not cost the run its sandbox
            if not mounts:
                raise
            mounts = ()
            self._sandbox = self._opener(mounts)
        self.files += [mount.inside.name for mount in mounts]
        self._room_bytes = self._sandbox.spec.limits.work_bytes // SENT_SHARE
        for source in self._inputs.values():
            self._name_or_send(self._sandbox, _name(source), Path(source.path))

    def _mounts(self) -> Iterator[Mount]:
        for source in self._inputs.values():
            path = Path(source.path)
            try:
                if path.stat().st_size > self._sent_bytes and _below(self._mounted, path) is None:
                    yield Mount(path.resolve(), PurePosixPath(_name(source)))
            except (OSError, InputError):
                continue

    def _name_or_send(self, sandbox: Sandbox, name: str, path: Path) -> None:
        """Give an input: by its place below a mount, else as a copy."""
        place = _below(self._mounted, path)
        if place is None or name in self._tried:
            return self._send(sandbox, name, path)
        self._tried.add(name)
        with contextlib.suppress(InputError):
            sandbox.link(name, place)
            self.files.append(name)
        return None

    def _send(self, sandbox: Sandbox, name: str, path: Path) -> None:
        """Give a file, once; one that is missing, too large or does not fit any more is left out."""
        if name in self._tried:
            return
        self._tried.add(name)
        try:
            size_bytes = path.stat().st_size
            if size_bytes > min(self._sent_bytes, self._room_bytes):
                return
            sandbox.put(name, path, read_only=True)
        except (OSError, InputError):
            return
        self._room_bytes -= size_bytes
        self.files.append(name)


def _below(mounts: tuple[Mount, ...], path: Path) -> PurePosixPath | None:
    """Where code finds a file of the host that is mounted, or lies in a folder that is."""
    real = path.resolve()
    for mount in mounts:
        if real.is_relative_to(mount.source) and real.is_file():
            return mount.inside / real.relative_to(mount.source)
    return None


def _name(source: Source) -> str:
    suffix = Path(source.path).suffix.lower()
    return source.name + (suffix if _SUFFIX.fullmatch(suffix) else "")
