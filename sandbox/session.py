"""The part of a sandbox that is the same for every engine: asks a worker over the pipe and judges how it ended."""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from abc import ABC, abstractmethod
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, ClassVar, Self

from keyeloop.runtime.errors import InputError, SandboxError
from keyeloop.sandbox.artifacts import KeptArtifacts
from keyeloop.sandbox.conversation import FILES_S, Conversation, WorkerGone
from keyeloop.sandbox.frames import PipeBroken, PipeClosed, PipeTimeout
from keyeloop.sandbox.replies import ExecReply
from keyeloop.sandbox.results import Artifact, Availability, ExecResult, Isolation, Status
from keyeloop.sandbox.running import Running
from keyeloop.sandbox.spec import INPUTS, WORK, SandboxSpec, path_inside


class WorkerSandbox(ABC):
    """A sandbox around the worker of this package. An engine adds how one is started and found available."""

    engine: ClassVar[str]

    def __init__(self, spec: SandboxSpec | None = None) -> None:
        self.spec = spec or SandboxSpec()
        self._lock = threading.RLock()
        self._running: Running | None = None
        self._conversation: Conversation | None = None
        self._finalizer: weakref.finalize[..., Any] | None = None
        self._isolation: Isolation | None = None
        self._kept = KeptArtifacts(self.spec.limits)
        self._index = 0
        self._begun_s = 0.0
        self._nothing_to_lose = True
        self._untold = False
        """Whether state was lost that no result has told of."""
        self._given: dict[PurePosixPath, bytes | Path] = {}
        """Read-only files, for every worker anew."""
        self._linked: dict[PurePosixPath, PurePosixPath] = {}
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
            conversation = self._revive()
            running = conversation.running
            lost, self._untold = self._untold, False
            self._index += 1
            begun_s = time.monotonic()
            wall_s = self.spec.limits.wall_s if timeout_s is None else timeout_s
            running.expire(self._begun_s + self.spec.limits.session_s + wall_s)
            kills = running.oom_kills()
            try:
                result = self._attempt(conversation, code, begun_s, wall_s, kills, lost)
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
            self._revive().send(target, data, read_only)
            if read_only:
                self._given[target] = data
            else:
                self._nothing_to_lose = False

    def link(self, path: str, target: PurePosixPath) -> None:
        """Name a mounted file in ``/work``."""
        name = path_inside(path)
        if not name.is_relative_to(WORK) or not target.is_relative_to(INPUTS) or ".." in target.parts:
            raise InputError(f"cannot link {path!r} to {target}: names go below {WORK}, targets lie below {INPUTS}")
        with self._lock:
            self._revive().link(name, target)
            self._linked[name] = target

    def get(self, path: str, *, max_bytes: int | None = None) -> bytes:
        """The bytes of a file."""
        source = path_inside(path)
        limit_bytes = self.spec.limits.artifact_bytes if max_bytes is None else max_bytes
        with self._lock:
            kept = self._kept.find(source)
            if kept is None:
                return self._revive().read(source, limit_bytes, time.monotonic() + FILES_S)
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
            self._linked.clear()
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

    def _revive(self) -> Conversation:
        """Have a live worker, with the files that every one is given."""
        if self._closed:
            raise SandboxError("the sandbox is closed: open another one")
        if self._running is not None and self._conversation is not None and not self._running.exited():
            return self._conversation
        self._end()
        try:
            conversation = self._begin()
        except WorkerGone:  # killed while it started: what is wrong with the machine will be wrong again
            conversation = self._begin()
        running = conversation.running
        self._begun_s = time.monotonic()
        running.expire(self._begun_s + min(self.spec.limits.session_s, self.spec.limits.idle_s))
        self._untold, self._nothing_to_lose = self._untold or not self._nothing_to_lose, True
        for target, data in self._given.items():
            with contextlib.suppress(OSError):  # the host's file is gone meanwhile
                conversation.send(target, data, read_only=True)
        for name, target in self._linked.items():
            conversation.link(name, target)
        return conversation

    def _begin(self) -> Conversation:
        """Start a worker and see that it is isolated."""
        running = self._launch()
        self._running = running
        self._finalizer = weakref.finalize(self, running.end)
        try:
            self._conversation = conversation = Conversation(running)
            conversation.greet(self.engine, self.spec)
            self._isolation = running.confirm()
        except BaseException:
            self._end()
            raise
        return conversation

    def _attempt(
        self, conversation: Conversation, code: str, begun_s: float, wall_s: float, kills: int, lost: bool
    ) -> ExecResult:
        running = conversation.running
        status: Status
        reply: ExecReply | None = None
        artifacts: tuple[Artifact, ...] = ()
        notes: list[str] = []
        try:
            reply, timed_out = conversation.run(code, begun_s + wall_s, self.spec.limits.interrupt_grace_s)
            status = "timeout" if timed_out else "ok" if reply.status == "ok" else "error"
            fetch_by_s = time.monotonic() + FILES_S
            artifacts, notes = self._kept.collect(reply, lambda path, most: conversation.read(path, most, fetch_by_s))
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

    def _end(self) -> None:
        if self._running is not None:
            self._running.end()
            self._running = self._conversation = None
        if self._finalizer is not None:
            self._finalizer.detach()
            self._finalizer = None
