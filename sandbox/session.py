"""The part of a sandbox that is the same for every engine: asks a worker over the pipe and judges how it ended."""

from __future__ import annotations

import threading
import time
import weakref
from abc import ABC, abstractmethod
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, ClassVar, Final, Self

from keyeloop.runtime.errors import InputError, SandboxError
from keyeloop.sandbox.artifacts import KeptArtifacts
from keyeloop.sandbox.frames import PipeBroken, PipeClosed, PipeTimeout
from keyeloop.sandbox.replies import ExecReply, parse_exec, take_int
from keyeloop.sandbox.results import Artifact, Availability, ExecResult, Isolation, Status
from keyeloop.sandbox.running import Running, greeting, program
from keyeloop.sandbox.spec import WORK, SandboxSpec, path_inside

START_S: Final = 20.0
FILES_S: Final = 20.0
"""For the transfer of one file, or of all the artifacts of one execution."""
PIECE_BYTES: Final = 1 << 20


class WorkerSandbox(ABC):
    """A sandbox around the worker of this package. An engine adds how one is started and found available."""

    engine: ClassVar[str]

    def __init__(self, spec: SandboxSpec | None = None) -> None:
        self.spec = spec or SandboxSpec()
        self._lock = threading.RLock()
        self._running: Running | None = None
        self._finalizer: weakref.finalize[..., Any] | None = None
        self._isolation: Isolation | None = None
        self._kept = KeptArtifacts(self.spec.limits)
        self._index = 0
        self._request = 0
        self._begun_s = 0.0
        self._nothing_to_lose = True
        self._untold = False
        """Whether state was lost that no result has told of."""
        self._given: dict[PurePosixPath, bytes | Path] = {}
        """Read-only files, for every worker anew."""
        self._closed = False

    @classmethod
    @abstractmethod
    def available(cls, spec: SandboxSpec | None = None) -> Availability:
        """Start one, attack it, and say whether it held."""

    @abstractmethod
    def _launch(self) -> Running:
        """Start a worker process. Raises SandboxUnavailable or SandboxError."""

    @property
    def isolation(self) -> Isolation:
        """What stands between the code and the host; starts the worker if need be."""
        self.start()
        assert self._isolation is not None
        return self._isolation

    def start(self) -> None:
        """Start the worker unless it runs."""
        with self._lock:
            self._revive()

    def exec(self, code: str, *, timeout_s: float | None = None) -> ExecResult:
        """Run ``code``; see :class:`~keyeloop.sandbox.protocol.Sandbox`."""
        with self._lock:
            self._revive()
            lost, self._untold = self._untold, False
            running = self._running
            assert running is not None
            self._index += 1
            begun_s = time.monotonic()
            wall_s = self.spec.limits.wall_s if timeout_s is None else timeout_s
            running.expire(self._begun_s + self.spec.limits.session_s + wall_s)
            kills = running.oom_kills()
            try:
                result = self._attempt(running, code, begun_s, wall_s, kills, lost)
            except BaseException:
                self._end()
                raise
            self._nothing_to_lose = result.state_lost and self._running is None
            now_s = time.monotonic()
            running.expire(min(self._begun_s + self.spec.limits.session_s, now_s + self.spec.limits.idle_s))
            return result

    def put(self, path: str, data: bytes | Path, *, read_only: bool = False) -> None:
        """Write a file into ``/work``."""
        target = path_inside(path)
        if not target.is_relative_to(WORK):
            raise InputError(f"cannot put {path!r}: files go below {WORK}")
        with self._lock:
            self._revive()
            self._send(target, data, read_only)
            if read_only:
                self._given[target] = data
            else:
                self._nothing_to_lose = False

    def get(self, path: str, *, max_bytes: int | None = None) -> bytes:
        """The bytes of a file."""
        source = path_inside(path)
        limit_bytes = self.spec.limits.artifact_bytes if max_bytes is None else max_bytes
        with self._lock:
            kept = self._kept.find(source)
            if kept is None:
                self._revive()
                return self._read(source, limit_bytes, time.monotonic() + FILES_S)
        if len(kept) > limit_bytes:
            raise InputError(f"{path} in the sandbox has {len(kept)} bytes, more than {limit_bytes}")
        return kept

    def artifacts(self) -> tuple[Artifact, ...]:
        """Every file left in ``/out`` so far."""
        with self._lock:
            return self._kept.all()

    def interrupt(self) -> None:
        """Stop the execution in progress, from another thread."""
        if (running := self._running) is not None:
            running.interrupt()

    def reset(self) -> None:
        """Throw everything away and start afresh."""
        with self._lock:
            self._end()
            self._kept.clear()
            self._nothing_to_lose, self._untold = True, False
            self._given.clear()
            self._revive()

    def close(self) -> None:
        """End everything, an execution in progress in another thread included."""
        self._closed = True
        if (running := self._running) is not None:
            running.expire(time.monotonic())
        with self._lock:
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _revive(self) -> None:
        """Have a live worker, with the files that every one is given."""
        if self._closed:
            raise SandboxError("the sandbox is closed: open another one")
        if self._running is not None and not self._running.exited():
            return
        self._end()
        running = self._launch()
        self._running = running
        self._finalizer = weakref.finalize(self, running.end)
        try:
            self._greet(running)
        except BaseException:
            self._end()
            raise
        self._begun_s = time.monotonic()
        running.expire(self._begun_s + min(self.spec.limits.session_s, self.spec.limits.idle_s))
        self._untold, self._nothing_to_lose = self._untold or not self._nothing_to_lose, True
        for target, data in self._given.items():
            self._send(target, data, read_only=True)

    def _greet(self, running: Running) -> None:
        deadline_s = time.monotonic() + START_S
        try:
            running.pipe.send_raw(program(), deadline_s)
            running.pipe.send(greeting(self.spec, running.setup), b"", deadline_s)
            header, _ = running.pipe.receive(deadline_s)
        except SandboxError as error:
            said = " ".join(running.leftovers(2000)).strip() or str(error)
            raise SandboxError(f"the {self.engine} sandbox did not start: {said}") from error
        if header.get("ready") is not True:
            raise SandboxError(f"the {self.engine} sandbox did not start: its first message was not a greeting")
        self._isolation = running.confirm()

    def _attempt(
        self, running: Running, code: str, begun_s: float, wall_s: float, kills: int, lost: bool
    ) -> ExecResult:
        status: Status
        reply: ExecReply | None = None
        artifacts: tuple[Artifact, ...] = ()
        notes: list[str] = []
        try:
            reply, timed_out = self._converse(running, code, begun_s + wall_s)
            status = "timeout" if timed_out else "ok" if reply.status == "ok" else "error"
            fetch_by_s = time.monotonic() + FILES_S
            artifacts, notes = self._kept.collect(reply, lambda path, most: self._read(path, most, fetch_by_s))
        except PipeTimeout:
            status = "timeout"
        except PipeClosed:
            status = "crashed"
        except PipeBroken as error:
            status, notes = "protocol", [str(error)]
        if status != "timeout" and (
            running.oom_kills() > kills or (reply and reply.error and reply.error.name == "MemoryError")
        ):
            status = "oom"
        alive = status in ("ok", "error", "timeout", "oom") and reply is not None and not running.exited()
        stdout, stderr = (reply.stdout, reply.stderr) if reply else running.leftovers(self.spec.limits.stdout_bytes)
        if not alive:
            self._end()
        return ExecResult(
            status,
            stdout,
            "\n".join([stderr.rstrip("\n"), *notes]).lstrip("\n") if notes else stderr,
            bool(reply and reply.truncated),
            reply.error if reply else None,
            reply.displays if reply else (),
            artifacts,
            time.monotonic() - begun_s,
            self._index,
            lost or not alive,
        )

    def _converse(self, running: Running, code: str, deadline_s: float) -> tuple[ExecReply, bool]:
        """Ask for an execution and wait; the reply, and whether time ran out before it came."""
        timed_out = False
        try:
            header, blob = self._exchange(running, {"op": "exec", "code": code}, b"", deadline_s)
        except PipeTimeout:
            timed_out = True
            running.interrupt()
            try:
                header, blob = running.pipe.receive(time.monotonic() + self.spec.limits.interrupt_grace_s)
            except PipeClosed as error:
                raise PipeTimeout("the interrupt ended the worker") from error
            self._check(header)
        if "problem" in header:
            raise PipeClosed("the worker could not answer")
        return parse_exec(header, blob), timed_out

    def _send(self, target: PurePosixPath, data: bytes | Path, read_only: bool) -> None:
        content = data if isinstance(data, bytes) else data.read_bytes()
        for start in range(0, max(len(content), 1), PIECE_BYTES):
            piece = content[start : start + PIECE_BYTES]
            last = start + PIECE_BYTES >= len(content)
            request = {"op": "put", "path": str(target), "append": start > 0, "seal": read_only and last}
            self._ask(request, piece, time.monotonic() + FILES_S)

    def _read(self, source: PurePosixPath, limit_bytes: int, deadline_s: float) -> bytes:
        data = bytearray()
        while True:
            request = {"op": "get", "path": str(source), "offset": len(data), "size": PIECE_BYTES}
            header, piece = self._ask(request, b"", deadline_s)
            size = take_int(header, "size")
            data += piece
            if max(size, len(data)) > limit_bytes:
                raise InputError(f"{source} in the sandbox has {max(size, len(data))} bytes, more than {limit_bytes}")
            if not piece or len(data) >= size:
                return bytes(data)

    def _ask(self, request: dict[str, Any], blob: bytes, deadline_s: float) -> tuple[dict[str, Any], bytes]:
        """One request about a file. A worker that fails at it is ended."""
        assert self._running is not None
        try:
            header, piece = self._exchange(self._running, request, blob, deadline_s)
        except SandboxError:
            self._end()
            raise
        if "problem" in header:
            raise InputError(f"{request['path']} in the sandbox: {str(header['problem'])[:200]}")
        return header, piece

    def _exchange(
        self, running: Running, request: dict[str, Any], blob: bytes, deadline_s: float
    ) -> tuple[dict[str, Any], bytes]:
        self._request += 1
        running.pipe.send({"id": self._request, **request}, blob, deadline_s)
        header, reply = running.pipe.receive(deadline_s)
        self._check(header)
        return header, reply

    def _check(self, header: dict[str, Any]) -> None:
        if header.get("id") != self._request:
            raise PipeBroken("a reply came that nobody had asked for")

    def _end(self) -> None:
        if self._running is not None:
            self._running.end()
            self._running = None
        if self._finalizer is not None:
            self._finalizer.detach()
            self._finalizer = None
