"""A server as a child that cannot outlive its launcher, whatever ends the launcher."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from keyeloop.model_backend.sglang.serve import guard
from keyeloop.runtime.errors import BackendError

GRACE_S = 20.0
"""From the polite signal to the one that cannot be refused; SGLang lets running requests end in this time."""


class ServerProcess:
    """A running command with all its descendants, as a context: leaving it stops them.

    Between this process and the command stands :mod:`guard`, which holds the other end of a pipe: when this process
    ends in any way, SIGKILL included, the pipe ends and the guard stops the command's whole group. Should the guard be
    killed, Linux kills the command (``PR_SET_PDEATHSIG``). SIGINT is not sent: a terminal's Ctrl-C reaches only us.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path, *, grace_s: float = GRACE_S
    ) -> None:
        """Start ``command`` with exactly ``environment``, both its outputs in ``log``. Raises BackendError."""
        self.log = log
        self._grace_s = grace_s
        reading, self._alive_fd = os.pipe()
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("wb") as output:
                self._guard = subprocess.Popen(
                    [sys.executable, "-I", guard.__file__, str(reading), str(grace_s), *command],
                    env=dict(environment),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    pass_fds=[reading],
                    start_new_session=True,
                )
        except OSError as error:
            os.close(self._alive_fd)
            raise BackendError(f"the server cannot be started ({command[0]}): {error.strerror or error}") from None
        finally:
            os.close(reading)

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def ended(self, wait_s: float = 0.0) -> int | None:
        """The exit code once everything has ended (128 + signal for a signal), else None after ``wait_s``."""
        try:
            return self._guard.wait(wait_s)
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> None:
        """Ask the group to end, wait, and kill what remains; returns when nothing is left. Interrupted, it kills."""
        if self._alive_fd < 0:
            return
        try:
            self._say(guard.STOP)
            self._guard.wait()
        except KeyboardInterrupt:
            self._say(guard.KILL)
            self._guard.wait()
            raise
        finally:
            os.close(self._alive_fd)
            self._alive_fd = -1

    def _say(self, word: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has ended
            os.write(self._alive_fd, word)

    def last_lines(self, count: int = 20) -> list[str]:
        """The end of what the server wrote, without the parts of a progress bar that were written over."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - 64_000))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return []
        lines = (line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n"))
        return [line for line in lines if line][-count:]
