"""Which Python runs inside a sandbox: where its parts lie on the host, and where code sees them."""

from __future__ import annotations

import functools
import json
import os
import site
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from keyeloop.runtime.errors import InputError

SYSTEM: Final = Path("/usr")
"""Mounted as it is; an interpreter below it needs nothing more."""
HOME: Final = PurePosixPath("/opt/python")
SITES: Final = PurePosixPath("/opt/site")
_PARTS: Final = ("bin", "lib", "lib64")
_QUESTION: Final = """
import json, os, site, sys
base = getattr(sys, "_base_executable", None) or sys.executable
print(json.dumps([os.path.realpath(base), os.path.realpath(sys.base_prefix), site.getsitepackages()]))
"""


@dataclass(frozen=True)
class Interpreter:
    """A Python as the host knows it, links resolved."""

    executable: Path
    prefix: Path
    """Of the installation, not of a virtual environment."""
    sites: tuple[Path, ...]
    """Folders of installed packages, those of a virtual environment included."""

    @property
    def inside(self) -> PurePosixPath:
        """The program's path as seen by code."""
        if self.executable.is_relative_to(SYSTEM):
            return PurePosixPath(self.executable)
        return HOME / "bin" / self.executable.name

    @property
    def sites_inside(self) -> tuple[PurePosixPath, ...]:
        """Package folders as seen by code."""
        return tuple(
            PurePosixPath(folder) if folder.is_relative_to(SYSTEM) else SITES / str(number)
            for number, folder in enumerate(self.sites)
        )

    @property
    def binds(self) -> tuple[tuple[Path, PurePosixPath], ...]:
        """What has to be mounted read-only, host path first. Fixed names inside, so that the host's are not told."""
        parts: list[tuple[Path, PurePosixPath]] = []
        if not self.executable.is_relative_to(SYSTEM):
            parts = [(self.prefix / name, HOME / name) for name in _PARTS if (self.prefix / name).is_dir()]
        inside = zip(self.sites, self.sites_inside, strict=True)
        return (*parts, *((folder, seen) for folder, seen in inside if not folder.is_relative_to(SYSTEM)))


@functools.cache
def interpreter(python: Path | None = None) -> Interpreter:
    """The parts of ``python``, or of the one that runs this program.

    Another Python is asked once, by running it. Raises InputError where it cannot be run.
    """
    if python is None or python == Path(sys.executable):
        base = getattr(sys, "_base_executable", None) or sys.executable
        folders = site.getsitepackages()
        if site.ENABLE_USER_SITE:
            folders.append(site.getusersitepackages())
        return _resolved(base, sys.base_prefix, folders)
    try:
        asked = subprocess.run(
            [python, "-I", "-c", _QUESTION], env={}, cwd="/", capture_output=True, timeout=30, check=True
        )
        return _resolved(*json.loads(asked.stdout))
    except (OSError, subprocess.SubprocessError, ValueError, TypeError) as error:
        raise InputError(f"{python} cannot be used as the sandbox's Python: {error}") from error


def _resolved(executable: str, prefix: str, folders: list[str]) -> Interpreter:
    sites = dict.fromkeys(Path(os.path.realpath(folder)) for folder in folders if Path(folder).is_dir())
    return Interpreter(Path(os.path.realpath(executable)), Path(os.path.realpath(prefix)), tuple(sites))
