"""What a sandbox gives back: how it isolates, whether it can run here, what an execution did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

Status = Literal["ok", "error", "timeout", "oom", "crashed", "protocol"]


@dataclass(frozen=True)
class Isolation:
    """What stands between code and the host, as found when the sandbox started."""

    engine: str
    boundary: Literal["namespaces", "gvisor", "vm", "none"]
    """``namespaces`` shares the host's kernel."""
    uid: int
    """The user that the host's kernel sees; never 0."""
    seccomp: bool
    userns: bool
    network: bool
    """Whether any network can be reached."""
    memory: Literal["cgroup", "per-process", "none"]
    pids: Literal["cgroup", "rlimit", "none"]


@dataclass(frozen=True)
class Availability:
    """Whether an engine works on this machine, found by starting one and attacking it."""

    ok: bool
    engine: str
    reason: str
    """Why not; empty when it works."""
    remedy: str
    """What to install or switch on; empty when it works."""


@dataclass(frozen=True)
class Display:
    """One thing that code showed: the same content in several forms by MIME type. Written by untrusted code."""

    data: Mapping[str, str | bytes]


@dataclass(frozen=True)
class Artifact:
    """A file that code left in ``/out``; the host has its bytes (``get("/out/" + path)``)."""

    path: PurePosixPath
    """Relative to ``/out``."""
    size: int
    sha256: str
    mime: str
    """By content, not by name."""


@dataclass(frozen=True)
class ExecError:
    """What code raised."""

    name: str
    """Class of the exception, such as ``NameError``."""
    message: str
    traceback: str
    """From the first line of the code on, worker frames left out."""
    line: int | None
    """Line of the code that was running or could not be parsed, counted from 1."""


@dataclass(frozen=True)
class ExecResult:
    """What one execution did.

    ``ok`` and ``error`` are the worker's own word; ``timeout``, ``crashed`` and ``protocol`` are the host's;
    ``oom`` is either a MemoryError or the kernel's kill.
    """

    status: Status
    stdout: str
    stderr: str
    truncated: bool
    """Whether the middle of an output was left out."""
    error: ExecError | None
    displays: tuple[Display, ...]
    """The last expression's value and open figures, in order."""
    artifacts: tuple[Artifact, ...]
    """Files that are new or changed since the execution before."""
    wall_s: float
    index: int
    """Counts executions of this sandbox from 1."""
    state_lost: bool
    """Whether variables and files of earlier executions are gone."""
