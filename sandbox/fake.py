"""A sandbox that runs nothing and gives prepared results, for tests of what uses one."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

from keyeloop.runtime.errors import InputError, SandboxError
from keyeloop.sandbox.artifacts import mime_of
from keyeloop.sandbox.results import Artifact, Availability, Display, ExecError, ExecResult, Isolation, Status
from keyeloop.sandbox.spec import INPUTS, OUTPUTS, WORK, SandboxSpec, path_inside

Outcome = str | ExecError | ExecResult
"""What an execution printed, what it raised, or all that it did."""
Prepared = Outcome | Callable[[str], Outcome]
"""One entry: an outcome, or a function of the code that makes one or raises."""


class FakeSandbox:
    """Gives prepared results in order and keeps the code that it was given in ``executed``. Runs none of it.

    ``results`` is a sequence of entries, or one function that answers every execution. Files live in ``files`` by their
    absolute path inside; what stands below ``/out`` from the start is an artifact of the first execution. SandboxError
    when the results run out, and after :meth:`close`, as with a real one.
    """

    def __init__(
        self,
        results: Sequence[Prepared] | Callable[[str], Outcome] = (),
        *,
        files: Mapping[str, bytes] | None = None,
        spec: SandboxSpec | None = None,
    ) -> None:
        self.spec = spec or SandboxSpec()
        self.executed: list[str] = []
        self.timeouts_s: list[float | None] = []
        """``timeout_s`` of each execution."""
        self.files = {str(path_inside(path)): data for path, data in (files or {}).items()}
        self.links: dict[str, str] = {}
        """What stands for a mounted file, by the absolute path of its name."""
        self.started = self.closed = False
        self.interrupts = self.resets = 0
        self._results = results if callable(results) else tuple(results)
        self._lock = threading.Lock()

    @property
    def isolation(self) -> Isolation:
        """No boundary: there is nothing to keep in."""
        return Isolation("fake", "none", 65534, False, False, False, "none", "none")

    @classmethod
    def available(cls, spec: SandboxSpec | None = None) -> Availability:
        """Always."""
        return Availability(True, "fake", "", "")

    def start(self) -> None:
        """Note that it was started."""
        self._require_open()
        self.started = True

    def exec(self, code: str, *, timeout_s: float | None = None) -> ExecResult:
        """The next result, with its index, its time and new artifacts filled in."""
        with self._lock:
            self.start()
            began_s = time.monotonic()
            self.executed.append(code)
            self.timeouts_s.append(timeout_s)
            index = len(self.executed)
            entry = self._entry(index)
            made = entry(code) if callable(entry) else entry
            result = made if isinstance(made, ExecResult) else _result(made)
            artifacts = result.artifacts or (self.artifacts() if index == 1 else ())
            return replace(result, artifacts=artifacts, index=index, wall_s=result.wall_s or time.monotonic() - began_s)

    def put(self, path: str, data: bytes | Path, *, read_only: bool = False) -> None:
        """Keep a file of ``/work``."""
        self._require_open()
        target = path_inside(path)
        if not target.is_relative_to(WORK):
            raise InputError(f"cannot put {path!r}: files go below {WORK}")
        self.files[str(target)] = data if isinstance(data, bytes) else data.read_bytes()

    def link(self, path: str, target: PurePosixPath) -> None:
        """Note the name of a mounted file in ``links``."""
        self._require_open()
        name = path_inside(path)
        if not name.is_relative_to(WORK) or not target.is_relative_to(INPUTS) or ".." in target.parts:
            raise InputError(f"cannot link {path!r} to {target}: names go below {WORK}, targets lie below {INPUTS}")
        self.links[str(name)] = str(target)

    def get(self, path: str, *, max_bytes: int | None = None) -> bytes:
        """The bytes of a file that was put or prepared."""
        self._require_open()
        limit_bytes = self.spec.limits.artifact_bytes if max_bytes is None else max_bytes
        data = self.files.get(str(path_inside(path)))
        if data is None:
            raise InputError(f"{path} in the sandbox: No such file or directory")
        if len(data) > limit_bytes:
            raise InputError(f"{path} in the sandbox has {len(data)} bytes, more than {limit_bytes}")
        return data

    def artifacts(self) -> tuple[Artifact, ...]:
        """Every file below ``/out``."""
        return tuple(
            Artifact(
                PurePosixPath(path).relative_to(OUTPUTS), len(data), hashlib.sha256(data).hexdigest(), mime_of(data)
            )
            for path, data in self.files.items()
            if PurePosixPath(path).is_relative_to(OUTPUTS)
        )

    def interrupt(self) -> None:
        """Count it; a prepared function may look at ``interrupts``."""
        self.interrupts += 1

    def reset(self) -> None:
        """Forget the files and count it; the results go on where they were."""
        self._require_open()
        self.files.clear()
        self.links.clear()
        self.resets += 1

    def close(self) -> None:
        """Note that it was closed."""
        self.closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _entry(self, index: int) -> Prepared:
        if callable(self._results):
            return self._results
        if index > len(self._results):
            raise SandboxError(
                f"the fake sandbox has {len(self._results)} results; execution {index} has none: add one"
            )
        return self._results[index - 1]

    def _require_open(self) -> None:
        if self.closed:
            raise SandboxError("the sandbox is closed: open another one")


def executed(
    stdout: str = "",
    *,
    status: Status = "ok",
    stderr: str = "",
    error: ExecError | None = None,
    displays: Sequence[Display] = (),
    state_lost: bool = False,
) -> ExecResult:
    """All that an execution did, most of it nothing; the sandbox fills in index, time and artifacts."""
    return ExecResult(status, stdout, stderr, False, error, tuple(displays), (), 0.0, 0, state_lost)


def _result(made: str | ExecError) -> ExecResult:
    return executed(made) if isinstance(made, str) else executed(status="error", error=made)
