"""The sandbox as its callers see it, whatever the engine."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Protocol, Self

from keyeloop.sandbox.results import Artifact, Availability, ExecResult, Isolation
from keyeloop.sandbox.spec import SandboxSpec


class Sandbox(Protocol):
    """A Python process that keeps its state between executions and can reach nothing else."""

    spec: SandboxSpec

    @property
    def isolation(self) -> Isolation:
        """What stands between the code and the host; known once started."""

    @classmethod
    def available(cls, spec: SandboxSpec | None = None) -> Availability:
        """Start one of the spec's interpreter or image, attack it, and say whether it held. Found once per process."""

    def start(self) -> None:
        """Start the worker unless it runs. Raises SandboxUnavailable or SandboxError."""

    def exec(self, code: str, *, timeout_s: float | None = None) -> ExecResult:
        """Run ``code`` and wait for its end, at most ``timeout_s`` plus the grace of the limits.

        Never raises for what the code did. A worker that is gone is replaced, which ``state_lost`` tells.
        """

    def put(self, path: str, data: bytes | Path, *, read_only: bool = False) -> None:
        """Write a file into ``/work``; ``path`` is relative to it. Raises InputError for a path outside.

        A ``read_only`` one is a copy that code cannot change by accident; every later worker is given it again, until
        :meth:`reset`.
        """

    def link(self, path: str, target: PurePosixPath) -> None:
        """Give a mounted file, or one of a mounted folder, a name in ``/work``; ``target`` lies below ``/in``.

        Every later worker is given it again, until :meth:`reset`. Raises InputError for other places or a taken name.
        """

    def get(self, path: str, *, max_bytes: int | None = None) -> bytes:
        """The bytes of a regular file, relative to ``/work`` or absolute. Raises InputError if absent or larger."""

    def artifacts(self) -> tuple[Artifact, ...]:
        """Every file left in ``/out`` so far, as last seen after an execution."""

    def interrupt(self) -> None:
        """Stop the execution in progress, from another thread; state is kept if the code lets go."""

    def reset(self) -> None:
        """Throw the worker, its variables and files away and start afresh."""

    def close(self) -> None:
        """End everything. May be called twice."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
