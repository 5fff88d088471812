"""What a sandbox is asked for: limits, read-only inputs, environment, interpreter."""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Final, Literal

from keyeloop.runtime.errors import ConfigError, InputError

INPUTS: Final = PurePosixPath("/in")
"""Read-only mounts, inside."""
WORK: Final = PurePosixPath("/work")
"""Where code starts and where :meth:`Sandbox.put` writes, inside; memory-backed, of limited size."""
OUTPUTS: Final = PurePosixPath("/out")
"""Where code leaves artifacts, inside."""

_NEVER_MOUNTED: Final = ("/dev", "/etc", "/proc", "/run", "/sys", "/var/run")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Limits:
    """What code may use up. Seconds are the host's clock; sizes are bytes."""

    wall_s: float = 30
    """One execution, unless the caller gives its own time."""
    interrupt_grace_s: float = 2
    """Between the interrupt and the kill of an execution that ran out of time."""
    session_s: float = 3600
    """Life of one worker; the next execution after it finds a fresh one."""
    idle_s: float = 1200
    """Time without an execution after which the worker is ended."""
    memory_bytes: int = 1 << 30
    """Of all processes together where a control group can be made, else of each."""
    pids: int = 64
    """Processes and threads together."""
    cpus: float = 1.0
    nofile: int = 256
    work_bytes: int = 256 << 20
    """Room of ``/work``."""
    tmp_bytes: int = 64 << 20
    """Room of ``/tmp``, and again of ``/dev/shm``."""
    file_bytes: int = 64 << 20
    """Size of one file, captured output included."""
    stdout_bytes: int = 64 << 10
    """Kept of standard output, and again of standard error; the middle of more is left out."""
    frame_bytes: int = 32 << 20
    """One message of the worker, pictures included."""
    artifact_count: int = 64
    artifact_bytes: int = 16 << 20
    artifacts_total_bytes: int = 64 << 20
    """Room of ``/out``, and what the host keeps of it."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if not value > 0:
                raise ConfigError(f"sandbox limit {each.name} is {value!r}: it must be above zero")


@dataclass(frozen=True)
class Mount:
    """A file or folder of the host that code may read. Always read-only.

    ``source`` is absolute and free of symbolic links; ``target`` is relative to ``/in`` or lies under it. Raises
    InputError for anything else. Sockets in a mounted folder can be connected to: mount files, or folders of files.
    """

    source: Path
    target: PurePosixPath

    def __post_init__(self) -> None:
        if not self.source.is_absolute() or self.source.resolve() != self.source:
            raise InputError(f"cannot mount {self.source}: give its resolved path, {self.source.resolve()}")
        try:
            mode = self.source.stat().st_mode
        except OSError as error:
            raise InputError(f"cannot mount {self.source}: {error.strerror}") from error
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise InputError(f"cannot mount {self.source}: only files and folders can be mounted")
        if str(self.source) == "/" or any(self.source.is_relative_to(root) for root in _NEVER_MOUNTED):
            raise InputError(f"cannot mount {self.source}: it belongs to the system; copy what is needed elsewhere")
        inside = self.inside
        if inside == INPUTS or not inside.is_relative_to(INPUTS) or ".." in inside.parts:
            raise InputError(f"cannot mount at {self.target}: targets are names under {INPUTS}")

    @property
    def inside(self) -> PurePosixPath:
        """The absolute path that code sees."""
        return INPUTS / self.target


@dataclass(frozen=True)
class SandboxSpec:
    """Everything that decides what a sandbox is like. Raises ConfigError for a variable that cannot be set."""

    mounts: tuple[Mount, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables for code; nothing of the host's environment is passed on."""
    limits: Limits = Limits()
    network: Literal["none"] = "none"
    preimport: tuple[str, ...] = ()
    """Modules imported before the first execution; one that fails is left out."""
    python: Path | None = None
    """Interpreter that runs the code, as the host knows it; None takes the one that runs this program."""
    image: str | None = None
    """Docker image with a ``python3`` of 3.9 or newer; None takes the one of ``keyeloop sandbox build-image``."""

    def __post_init__(self) -> None:
        for name, value in self.env.items():
            if not _VARIABLE.fullmatch(name) or name.startswith("LD_") or "\0" in value:
                raise ConfigError(
                    f"sandbox variable {name!r} cannot be set: it is no plain name, or the loader reads it"
                )


def path_inside(path: str) -> PurePosixPath:
    """An absolute path inside; a relative one begins at ``/work``. Raises InputError for one that cannot be."""
    whole = WORK / path
    if not path or "\0" in path or ".." in whole.parts:
        raise InputError(f"{path!r} is not a path in the sandbox")
    return whole
