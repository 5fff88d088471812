"""What is said to one worker: a request, one reply to it, and nothing believed that comes back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final

from keyeloop.runtime.errors import InputError, SandboxError
from keyeloop.sandbox.frames import PipeBroken, PipeClosed, PipeTimeout
from keyeloop.sandbox.replies import ExecReply, parse_exec, take_int
from keyeloop.sandbox.running import Running, greeting, program
from keyeloop.sandbox.spec import INPUTS, OUTPUTS, WORK, SandboxSpec

START_S: Final = 20.0
FILES_S: Final = 20.0
"""For the transfer of one file, or of all the artifacts of one execution."""
PIECE_BYTES: Final = 1 << 20


class WorkerGone(SandboxError):
    """Raised when a worker ended while it started."""


class Conversation:
    """The host's side of one worker's pipe. Not for two threads at once."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self._asked = 0

    def greet(self, engine: str, spec: SandboxSpec) -> None:
        """Send the program and its settings, and wait until it is ready. Raises SandboxError with what was said."""
        running, deadline_s = self.running, time.monotonic() + START_S
        try:
            running.pipe.send_raw(program(), deadline_s)
            running.pipe.send(greeting(spec, running.setup), b"", deadline_s)
            header, _ = running.pipe.receive(deadline_s)
        except SandboxError as error:
            said = " ".join(running.leftovers(2000)).strip() or str(error)
            kind = WorkerGone if isinstance(error, PipeClosed) else SandboxError
            raise kind(f"the {engine} sandbox did not start: {said}") from error
        if header.get("ready") is not True:
            raise SandboxError(f"the {engine} sandbox did not start: its first message was not a greeting")

    def run(self, code: str, deadline_s: float, grace_s: float) -> tuple[ExecReply, bool]:
        """Ask for an execution and wait; the reply, and whether time ran out before it came.

        Raises PipeTimeout where the interrupt did not help, PipeClosed or PipeBroken where the worker is lost.
        """
        timed_out = False
        try:
            header, blob = self._exchange({"op": "exec", "code": code}, b"", deadline_s)
        except PipeTimeout:
            timed_out = True
            self.running.interrupt()
            try:
                header, blob = self.running.pipe.receive(time.monotonic() + grace_s)
            except PipeClosed as error:
                raise PipeTimeout("the interrupt ended the worker") from error
            self._check(header)
        if "problem" in header:
            raise PipeClosed("the worker could not answer")
        return parse_exec(header, blob), timed_out

    def send(self, target: PurePosixPath, data: bytes | Path, read_only: bool) -> None:
        """Write a file, in pieces. Raises InputError for one that cannot be, OSError for a source that cannot."""
        sent_bytes = 0
        for piece, last in _pieces(data):
            about = {"append": sent_bytes > 0, "seal": read_only and last}
            self.ask("put", target, piece, time.monotonic() + FILES_S, **about)
            sent_bytes += len(piece)

    def link(self, name: PurePosixPath, target: PurePosixPath) -> None:
        """Make ``name`` mean what lies at ``target``. Raises InputError where the name is taken."""
        self.ask("link", name, b"", time.monotonic() + FILES_S, target=str(self._placed(target)))

    def read(self, source: PurePosixPath, limit_bytes: int, deadline_s: float) -> bytes:
        """The bytes of a file. Raises InputError where there is none, or more than ``limit_bytes`` of it."""
        data = bytearray()
        while True:
            header, piece = self.ask("get", source, b"", deadline_s, offset=len(data), size=PIECE_BYTES)
            size = take_int(header, "size")
            data += piece
            if max(size, len(data)) > limit_bytes:
                raise InputError(f"{source} in the sandbox has {max(size, len(data))} bytes, more than {limit_bytes}")
            if not piece or len(data) >= size:
                return bytes(data)

    def ask(
        self, op: str, path: PurePosixPath, blob: bytes, deadline_s: float, **more: Any
    ) -> tuple[dict[str, Any], bytes]:
        """One request about a file. A worker that fails at it is ended."""
        try:
            header, piece = self._exchange({"op": op, "path": str(self._placed(path)), **more}, blob, deadline_s)
        except SandboxError:
            self.running.end()
            raise
        if "problem" in header:
            raise InputError(f"{path} in the sandbox: {str(header['problem'])[:200]}")
        return header, piece

    def _placed(self, path: PurePosixPath) -> PurePosixPath:
        """Where the worker finds what code calls ``path``; an engine without a root of its own has folders instead."""
        root = self.running.setup.get("root")
        if not root or not any(path.is_relative_to(folder) for folder in (WORK, OUTPUTS, INPUTS)):
            return path
        return PurePosixPath(root, path.relative_to("/"))

    def _exchange(self, request: dict[str, Any], blob: bytes, deadline_s: float) -> tuple[dict[str, Any], bytes]:
        self._asked += 1
        self.running.pipe.send({"id": self._asked, **request}, blob, deadline_s)
        header, reply = self.running.pipe.receive(deadline_s)
        self._check(header)
        return header, reply

    def _check(self, header: dict[str, Any]) -> None:
        if header.get("id") != self._asked:
            raise PipeBroken("a reply came that nobody had asked for")


def _pieces(data: bytes | Path) -> Iterator[tuple[bytes, bool]]:
    """What is sent at once, and whether it is the last; an empty file has one piece. Files are never read whole."""
    if isinstance(data, bytes):
        for start in range(0, max(len(data), 1), PIECE_BYTES):
            yield data[start : start + PIECE_BYTES], start + PIECE_BYTES >= len(data)
        return
    with data.open("rb") as file:
        piece = file.read(PIECE_BYTES)
        while True:
            following = file.read(PIECE_BYTES) if piece else b""
            yield piece, not following
            if not following:
                return
            piece = following
